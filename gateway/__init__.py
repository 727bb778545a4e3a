"""Every way in: Envoy's configuration, the supervisor behind `skyagent up`, and the command line."""
