"""The ways out of the house: HTTP, MQTT, and OpenADR over HTTP."""
