"""Work done partition by partition, in this process or on a Ray cluster, and only where its inputs have changed."""
