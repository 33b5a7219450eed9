import socket
import sys

for name in sys.argv[1:]:
    try:
        print(name, *sorted({a[4][0] for a in socket.getaddrinfo(name, 80)}))
    except socket.gaierror as e:
        print(name, "none" if e.errno == socket.EAI_NONAME else e)
