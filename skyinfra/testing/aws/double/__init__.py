"""A `pulumi-resource-aws` in Python over boto3: the types that a cluster needs, and errors for all others."""
