"""The Helm chart, and the small programs that keep what it says of the product true."""
