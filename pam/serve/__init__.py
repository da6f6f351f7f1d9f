"""An HTTP server with the interfaces of OpenAI's API."""
