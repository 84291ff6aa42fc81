"""Settings of gunicorn for the task-farm server, in a container and under systemd: gunicorn -c gunicorn.conf.py."""

import sys

# A thread that computes an answer for a page lets claims go first after 0.5 ms; Python has 5 ms.
sys.setswitchinterval(0.0005)

wsgi_app = "cryotile.taskfarm.server:create_app()"
# nginx uses the socket, and the health check the port; neither is reachable from outside.  Under systemd the socket of
# cryotile.socket takes their place.
bind = ["unix:/run/cryotile/farm.sock", "127.0.0.1:8000"]
workers = 2
# gunicorn's own class, since nginx collects requests and answers: the first process then never imports cryotile, so
# that a reload takes up a new version.
worker_class = "gthread"
# A process has as many connections to the database as threads; six threads send events to pages.
threads = 12
keepalive = 75
# Requests in progress end before an old process does, event streams are cut.
graceful_timeout = 20
# In memory: a disk that hangs for a moment must not look like a process that hangs.
worker_tmp_dir = "/dev/shm"
# Signals control the server.
control_socket_disable = True
