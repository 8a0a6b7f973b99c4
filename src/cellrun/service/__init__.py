"""The code interpreter over HTTP: `cellrun serve`. Needs the extra `service`."""
