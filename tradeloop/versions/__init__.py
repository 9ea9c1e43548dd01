"""What is done with whole versions: compare two, clean the store up, hand one to another installation."""
