/* httpd: a candidate for HTTP checks: answers 200 to every request on COUNT consecutive IPv4 addresses.
 * Connections are kept open if the client wants that, and idle ones never closed.
 *
 *   httpd ADDR PORT COUNT COUNTER
 *
 * COUNTER is a file whose first eight bytes, in the machine's byte order, count the requests. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

enum { FDS = 65536, REQUEST = 2048, EVENTS = 64 };
static struct connection { int len; char request[REQUEST]; } *connections[FDS]; /* by descriptor; NULL: a listener */
static int epoll_fd;

static void watch(int fd) {
	struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e)) err(1, "epoll");
}
static void drop(int fd) {
	free(connections[fd]);
	connections[fd] = NULL;
	close(fd);
}
static void open_listener(uint32_t addr, int port) {
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(addr)};
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 512)) err(1, "listen");
	watch(fd);
}
static void accept_one(int listener) {
	int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
	if (fd < 0) return;
	if (fd >= FDS || !(connections[fd] = calloc(1, sizeof(struct connection)))) errx(1, "too many connections");
	watch(fd);
}
static void serve(int fd, volatile uint64_t *counter) {
	static const char reply[] = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n", last[] = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";
	struct connection *c = connections[fd];
	ssize_t n = read(fd, c->request + c->len, REQUEST - 1 - c->len);
	if (n <= 0) { drop(fd); return; }
	c->len += n;
	c->request[c->len] = 0;
	if (!strstr(c->request, "\r\n\r\n")) return;
	int done = strcasestr(c->request, "\r\nconnection: close") || strstr(c->request, " HTTP/1.0\r\n");
	c->len = 0;
	++*counter;
	if (done) n = write(fd, last, sizeof last - 1);
	else n = write(fd, reply, sizeof reply - 1);
	if (done || n < 0) drop(fd);
}

int main(int argc, char **argv) {
	struct in_addr base;
	if (argc != 5 || inet_pton(AF_INET, argv[1], &base) != 1) errx(2, "usage: httpd ADDR PORT COUNT COUNTER");
	if (ntohl(base.s_addr) >> 24 != 127) errx(2, "loopback only");
	int file = open(argv[4], O_RDWR | O_CREAT, 0600);
	if (file < 0 || ftruncate(file, 8)) err(1, "%s", argv[4]);
	volatile uint64_t *counter = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (counter == MAP_FAILED) err(1, "%s", argv[4]);
	signal(SIGPIPE, SIG_IGN);
	epoll_fd = epoll_create1(0);
	for (int i = 0; i < atoi(argv[3]); i++) open_listener(ntohl(base.s_addr) + i, atoi(argv[2]));
	for (struct epoll_event e[EVENTS];;) {
		int n = epoll_wait(epoll_fd, e, EVENTS, -1);
		for (int i = 0; i < n; i++) {
			if (connections[e[i].data.fd]) serve(e[i].data.fd, counter);
			else accept_one(e[i].data.fd);
		}
	}
}
