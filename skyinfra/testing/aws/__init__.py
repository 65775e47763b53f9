"""AWS without AWS: unmodified `pulumi_aws` programs on the real engine, against moto.

- `double` stands in for the provider plugin (`pulumi-resource-aws`) and does its work through boto3;
- `moto_server` is moto's EC2, IAM, SSM and STS in a process of its own, with what the tests need and moto lacks;
- `fault_proxy` sits in front of it and answers by rule with what AWS says when it is full, closed or angry;
- `bed.AwsBed` starts both on loopback and says what is there.

The plugin binary cannot be had everywhere; in production the engine uses the real one. An unknown resource type,
function or input is an error in the double: a silent pass would be its main danger.
"""
