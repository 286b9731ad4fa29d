"""What `conformance/run` is made of: brokers, parts, the lines tests print, and what RabbitMQ 3.10 answered."""
