// Asks a URL again and again, looking its name up each time with the C library's resolver (musl, when built with
// musl-gcc -static), over a new connection, until standard input ends.
//
// Usage: customer HOST PORT PATH PAUSE_MS. Prints one line of JSON at the end.
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const char *phase;

static const char *ask(const char *host, const char *port, const char *path, char *text, size_t size) {
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
	phase = "resolve";
	int e = getaddrinfo(host, port, &hints, &found);
	if (e) return gai_strerror(e);
	phase = "connect";
	struct timeval limit = {.tv_sec = 5};
	int fd = -1;
	for (struct addrinfo *a = found; a && fd < 0; a = a->ai_next) {
		fd = socket(a->ai_family, a->ai_socktype, a->ai_protocol);
		if (fd < 0) continue;
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
		if (connect(fd, a->ai_addr, a->ai_addrlen) < 0) {
			close(fd);
			fd = -1;
		}
	}
	freeaddrinfo(found);
	if (fd < 0) return "cannot connect";
	phase = "answer";
	int n = snprintf(text, size, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, host);
	if (write(fd, text, n) != n) {
		close(fd);
		return "cannot send";
	}
	size_t have = 0;
	ssize_t got;
	while (have < size - 1 && (got = read(fd, text + have, size - 1 - have)) > 0) have += got;
	close(fd);
	text[have] = 0;
	if (have < 12) return "no answer";
	return text[9] < '4' ? NULL : text;
}

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static const char *stamp(double when, char *out, size_t size) {
	time_t seconds = when;
	strftime(out, size, "%Y-%m-%dT%H:%M:%S", gmtime(&seconds));
	snprintf(out + strlen(out), size - strlen(out), ".%03dZ", (int)((when - seconds) * 1000));
	return out;
}

int main(int argc, char **argv) {
	if (argc != 5) return 2;
	static char text[65536], failed[1000 * 300], at[40];
	size_t told = 0;
	long requests = 0, failures = 0;
	double slowest = 0, slowest_at = now();
	struct pollfd in = {.fd = 0, .events = POLLIN};
	for (;;) {
		char drop[64];
		if (poll(&in, 1, atoi(argv[4])) > 0 && read(0, drop, sizeof drop) <= 0) break;
		requests++;
		double began = now();
		const char *error = ask(argv[1], argv[2], argv[3], text, sizeof text);
		double took = now() - began;
		if (took > slowest) slowest = took, slowest_at = began;
		if (error && failures++ < 1000) {
			size_t n = strcspn(error, "\r\n\"\\");
			told += snprintf(failed + told, sizeof failed - told,
				"%s{\"time\": \"%s\", \"took\": %.0f, \"phase\": \"%s\", \"error\": \"%.*s\"}", told ? ", " : "",
				stamp(began, at, sizeof at), took * 1e9, phase, (int)(n < 150 ? n : 150), error);
		}
	}
	printf("{\"requests\": %ld, \"failures\": %ld, \"slowest\": %.0f, \"slowestAt\": \"%s\", \"failed\": [%s]}\n", requests,
		failures, slowest * 1e9, stamp(slowest_at, at, sizeof at), failed);
	return 0;
}
