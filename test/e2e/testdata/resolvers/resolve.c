// Prints what getaddrinfo makes of each name: addresses, "none" for a name that does not exist, or what went wrong.
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>

int main(int n, char **names) {
	for (int i = 1; i < n; i++) {
		struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found, *a;
		char text[64];
		int failed = getaddrinfo(names[i], 0, &hints, &found);
		printf("%s", names[i]);
		if (failed)
			printf(" %s", failed == EAI_NONAME ? "none" : gai_strerror(failed));
		for (a = failed ? 0 : found; a; a = a->ai_next)
			if (a->ai_family == AF_INET)
				printf(" %s", inet_ntop(AF_INET, &((struct sockaddr_in *)a->ai_addr)->sin_addr, text, sizeof text));
		puts("");
	}
}
