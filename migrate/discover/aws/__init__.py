"""What an AWS account holds, in all of its regions."""
