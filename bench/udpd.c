/* udpd: the least that a DNS server over UDP can do: one recvfrom and one sendto for each datagram.
 *
 *   udpd echo   ADDR PORT          sends the question back with QR set: the floor of what an answer costs
 *   udpd answer ADDR PORT COUNTER  answers every question (A: 192.0.2.1, else no data): an upstream
 *
 * COUNTER is a file whose first eight bytes, in the machine's byte order, count the datagrams received. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { HEADER = 12, PACKET = 4096 };

static volatile uint64_t *map_counter(const char *path) {
	int fd = open(path, O_RDWR | O_CREAT, 0600);
	if (fd < 0 || ftruncate(fd, 8)) err(1, "%s", path);
	void *p = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED) err(1, "%s", path);
	return p;
}

/* answer turns the query of n octets into its reply; it returns its length, or 0 for no reply. */
static size_t answer(uint8_t *p, size_t n) {
	static const uint8_t record[16] = {0xc0, HEADER, 0, 1, 0, 1, 0, 0, 0x0e, 0x10, 0, 4, 192, 0, 2, 1};
	size_t at = HEADER;
	while (at < n && p[at]) at += p[at] + 1;
	at += 5; /* the root label, type, class */
	if (at > n || p[2] & 0x80) return 0;
	int a = p[at - 4] == 0 && p[at - 3] == 1;
	p[2] = 0x80 | (p[2] & 1); /* QR; RD as asked */
	p[3] = 0x80;              /* RA */
	memcpy(p + 4, (uint8_t[]){0, 1, 0, a, 0, 0, 0, 0}, 8);
	if (!a) return at;
	memcpy(p + at, record, sizeof record);
	return at + sizeof record;
}

int main(int argc, char **argv) {
	static uint8_t p[PACKET + 16];
	struct sockaddr_in here = {.sin_family = AF_INET}, from;
	int room = 4 << 20, echo = argc == 4 && !strcmp(argv[1], "echo");
	if (!echo && (argc != 5 || strcmp(argv[1], "answer"))) errx(2, "usage: udpd echo ADDR PORT | answer ADDR PORT COUNTER");
	here.sin_port = htons(atoi(argv[3]));
	if (inet_pton(AF_INET, argv[2], &here.sin_addr) != 1) errx(2, "not an IPv4 address: %s", argv[2]);
	int s = socket(AF_INET, SOCK_DGRAM, 0);
	setsockopt(s, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
	if (bind(s, (struct sockaddr *)&here, sizeof here)) err(1, "bind");
	volatile uint64_t *counter = echo ? NULL : map_counter(argv[4]);
	for (;;) {
		socklen_t l = sizeof from;
		ssize_t n = recvfrom(s, p, PACKET, 0, (struct sockaddr *)&from, &l);
		if (counter) ++*counter;
		if (n < HEADER) continue;
		if (echo) p[2] |= 0x80;
		else if (!(n = answer(p, n))) continue;
		sendto(s, p, n, 0, (struct sockaddr *)&from, l);
	}
}
