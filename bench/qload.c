/* qload: DNS queries over UDP from one thread, cheap enough that one processor drives any of the
 * servers here to its limit (dnsperf ends at about 190,000 queries a second).
 *
 *   qload -s ADDR -p PORT (-f FILE | -u SUFFIX) [-q WINDOW | -Q RATE] [-l SECONDS] [-t TIMEOUT_MS] [-S]
 *
 * FILE has lines "name type" (dnsperf's format), asked in order, again and again. With -u every query
 * has a name never used before below SUFFIX, so that no cache can answer it. -q is a closed loop (WINDOW
 * queries outstanding), -Q an open loop at RATE per second. With -S it never sleeps: a server then does
 * not pay for waking it up, which on virtual machines can cost more than the answer; use it only where
 * qload has a processor of its own.
 *
 * Prints one line of key=value. ok: NOERROR with an answer. lost: nothing within the timeout.
 * slow: answered, but later than SLOW_NS. Latencies are exact to 1/64. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

enum {
	SOCKETS = 16,      /* source ports, so that SO_REUSEPORT servers spread the load */
	BATCH = 32,        /* datagrams per system call */
	PACKET = 1500,
	RING = 1 << 20,    /* outstanding queries that can be remembered, in order of sending */
	SPIN_NS = 60000,   /* a send nearer than this is waited for without sleeping */
	SLOW_NS = 100000000,
};

struct query { uint8_t *wire; size_t len; };
struct client { int fd; uint16_t next_id; uint64_t sent_at[65536]; /* 0: that ID is free */ };
struct sent { uint64_t at; uint16_t id; uint8_t client; };

static struct { const char *addr, *file, *suffix; int port, window, spin; double rate, seconds; uint64_t timeout; } opt = {
	.addr = "127.0.0.1", .port = 53, .window = 64, .seconds = 3, .timeout = 1000000000,
};
static struct query *queries;
static size_t query_count, query_next;
static struct client clients[SOCKETS];
static struct sent ring[RING];
static uint64_t ring_head, ring_tail; /* oldest, next free */
static uint64_t sent, received, ok, lost, slow, late, send_errors, outstanding, worst;
static uint64_t histogram[64 * 64];
static int epoll_fd, segmentation = 1;

static uint64_t now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* The histogram is logarithmic: 64 buckets for each doubling. */
static unsigned bucket(uint64_t ns) {
	if (ns < 64) return ns;
	unsigned top = 63 - __builtin_clzll(ns);
	return (top - 5) * 64 + ((ns >> (top - 6)) & 63);
}
static double percentile_us(double p) {
	uint64_t want = p * received, seen = 0;
	for (unsigned i = 0; i < sizeof histogram / sizeof *histogram; i++)
		if ((seen += histogram[i]) > want) {
			uint64_t ns = i < 64 ? i : (1ull << (i / 64 + 5)) | ((uint64_t)(i & 63) << (i / 64 - 1));
			return ns / 1e3;
		}
	return 0;
}

/* encode writes a query with ID 0 and RD set; it returns its length. */
static size_t encode(uint8_t *out, const char *name, int type) {
	static const uint8_t header[12] = {[2] = 1, [5] = 1};
	size_t n = sizeof header;
	memcpy(out, header, n);
	while (*name) {
		size_t l = strcspn(name, ".");
		if (l == 0 || l > 63 || n + l > 260) errx(2, "not a name: %s", name);
		out[n++] = l;
		memcpy(out + n, name, l);
		n += l;
		name += l + (name[l] == '.');
	}
	memcpy(out + n, (uint8_t[]){0, type >> 8, type, 0, 1}, 5);
	return n + 5;
}

static void read_queries(const char *path) {
	FILE *f = fopen(path, "r");
	char name[300], type[16];
	uint8_t wire[PACKET];
	size_t room = 0;
	if (!f) err(2, "%s", path);
	while (fscanf(f, "%299s %15s", name, type) == 2) {
		if (query_count == room && !(queries = realloc(queries, (room = room * 2 + 1024) * sizeof *queries))) err(1, NULL);
		struct query *q = &queries[query_count++];
		q->len = encode(wire, name, strcasecmp(type, "AAAA") ? 1 : 28);
		if (!(q->wire = malloc(q->len))) err(1, NULL);
		memcpy(q->wire, wire, q->len);
	}
	fclose(f);
	if (!query_count) errx(2, "%s: no queries", path);
}

static size_t next_query(uint8_t *out) {
	if (opt.suffix) {
		static uint64_t base, count;
		char name[300];
		if (!base) base = (uint64_t)time(NULL) << 20 | (getpid() & 0xfffff);
		snprintf(name, sizeof name, "q%llx-%06llx.%s", (unsigned long long)base, (unsigned long long)count++, opt.suffix);
		return encode(out, name, 1);
	}
	struct query *q = &queries[query_next];
	query_next = (query_next + 1) % query_count;
	memcpy(out, q->wire, q->len);
	return q->len;
}

static void open_sockets(void) {
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(opt.port)};
	int room = 4 << 20;
	if (inet_pton(AF_INET, opt.addr, &to.sin_addr) != 1) errx(2, "not an IPv4 address: %s", opt.addr);
	epoll_fd = epoll_create1(0);
	for (int i = 0; i < SOCKETS; i++) {
		struct epoll_event e = {.events = EPOLLIN, .data.u32 = i};
		int fd = clients[i].fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
		if (connect(fd, (struct sockaddr *)&to, sizeof to) || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e)) err(1, "socket");
	}
}

/* send_segmented sends n queries of one length by one system call (UDP GSO); the server still receives
 * plain datagrams. */
static int send_segmented(int fd, struct mmsghdr *m, int n) {
	union { char room[CMSG_SPACE(sizeof(uint16_t))]; struct cmsghdr align; } control;
	struct iovec v[BATCH];
	uint16_t size = m[0].msg_hdr.msg_iov->iov_len;
	for (int i = 0; i < n; i++) {
		v[i] = *m[i].msg_hdr.msg_iov;
		if (v[i].iov_len != size) return -1;
	}
	struct msghdr h = {.msg_iov = v, .msg_iovlen = n, .msg_control = &control, .msg_controllen = sizeof control.room};
	struct cmsghdr *c = CMSG_FIRSTHDR(&h);
	c->cmsg_level = SOL_UDP;
	c->cmsg_type = UDP_SEGMENT;
	c->cmsg_len = CMSG_LEN(sizeof size);
	memcpy(CMSG_DATA(c), &size, sizeof size);
	if (sendmsg(fd, &h, 0) >= 0) return n;
	if (errno == EINVAL || errno == EIO) segmentation = 0; /* not known to this kernel or device */
	return -1;
}

/* send_batch sends up to want queries from the next socket; it returns how many it could. */
static int send_batch(int want) {
	static uint8_t packet[BATCH][PACKET];
	static int turn;
	struct iovec v[BATCH];
	struct mmsghdr m[BATCH];
	uint16_t ids[BATCH];
	int who = turn++ % SOCKETS, n = 0;
	struct client *c = &clients[who];
	memset(m, 0, sizeof m);
	for (; n < want && n < BATCH && ring_tail + n - ring_head < RING; n++) {
		ids[n] = c->next_id;
		if (c->sent_at[ids[n]]) break;
		c->next_id++;
		v[n] = (struct iovec){packet[n], next_query(packet[n])};
		packet[n][0] = ids[n] >> 8;
		packet[n][1] = ids[n];
		m[n].msg_hdr.msg_iov = &v[n];
		m[n].msg_hdr.msg_iovlen = 1;
	}
	if (!n) return 0;
	uint64_t t = now();
	int done = segmentation && n > 1 ? send_segmented(c->fd, m, n) : -1;
	if (done < 0) done = sendmmsg(c->fd, m, n, 0);
	if (done < 0) done = 0;
	for (int i = 0; i < done; i++) {
		c->sent_at[ids[i]] = t;
		ring[ring_tail++ % RING] = (struct sent){t, ids[i], who};
	}
	send_errors += n - done;
	sent += done;
	outstanding += done;
	return done;
}

static void send_due(uint64_t t, uint64_t start) {
	int64_t due = (int64_t)opt.window - (int64_t)outstanding;
	int most = (opt.window + SOCKETS - 1) / SOCKETS;
	if (opt.rate > 0) due = (t - start) * opt.rate / 1e9 - sent - send_errors, most = BATCH;
	while (due > 0) {
		int want = due < most ? due : most, done = send_batch(want);
		if (done < want) break;
		due -= done;
	}
}

static void forget_overdue(uint64_t t) {
	for (; ring_head < ring_tail; ring_head++) {
		struct sent *s = &ring[ring_head % RING];
		uint64_t *at = &clients[s->client].sent_at[s->id];
		if (*at != s->at) continue; /* answered */
		if (t - s->at < opt.timeout) break;
		*at = 0;
		lost++;
		outstanding--;
	}
}

static void receive(struct client *c) {
	static uint8_t packet[BATCH][PACKET];
	static struct iovec v[BATCH];
	static struct mmsghdr m[BATCH];
	for (int i = 0; i < BATCH; i++) {
		v[i] = (struct iovec){packet[i], PACKET};
		m[i].msg_hdr = (struct msghdr){.msg_iov = &v[i], .msg_iovlen = 1};
	}
	int n = recvmmsg(c->fd, m, BATCH, MSG_DONTWAIT, NULL);
	uint64_t t = now();
	for (int i = 0; i < n; i++) {
		uint8_t *p = packet[i];
		if (m[i].msg_len < 12) continue;
		uint64_t *at = &c->sent_at[p[0] << 8 | p[1]];
		if (!*at) { late++; continue; }
		uint64_t took = t - *at;
		*at = 0;
		outstanding--;
		received++;
		histogram[bucket(took)]++;
		if (took > worst) worst = took;
		slow += took > SLOW_NS;
		ok += (p[3] & 15) == 0 && (p[6] | p[7]);
	}
}

static void wait_and_receive(uint64_t start, int sending) {
	struct timespec w = {0, 1000000};
	struct epoll_event e[SOCKETS];
	if (opt.rate > 0 && sending) {
		double left = start + (sent + send_errors + 1) * 1e9 / opt.rate - now();
		if (left < w.tv_nsec) w.tv_nsec = left < SPIN_NS ? 0 : left;
	}
	if (opt.spin) w.tv_nsec = 0;
	int n = epoll_pwait2(epoll_fd, e, SOCKETS, &w, NULL);
	for (int i = 0; i < n; i++) receive(&clients[e[i].data.u32]);
}

int main(int argc, char **argv) {
	for (int c; (c = getopt(argc, argv, "s:p:f:u:q:Q:l:t:S")) != -1;) switch (c) {
		case 's': opt.addr = optarg; break;
		case 'p': opt.port = atoi(optarg); break;
		case 'f': opt.file = optarg; break;
		case 'u': opt.suffix = optarg; break;
		case 'q': opt.window = atoi(optarg); break;
		case 'Q': opt.rate = atof(optarg); break;
		case 'l': opt.seconds = atof(optarg); break;
		case 't': opt.timeout = atof(optarg) * 1e6; break;
		case 'S': opt.spin = 1; break;
		default: return 2;
	}
	if (!opt.file == !opt.suffix) errx(2, "one of -f and -u");
	if (opt.file) read_queries(opt.file);
	open_sockets();
	uint64_t start = now(), end = start + opt.seconds * 1e9, t;
	for (t = start; t < end || (outstanding && t < end + opt.timeout); t = now()) {
		forget_overdue(t);
		if (t < end) send_due(t, start);
		wait_and_receive(start, t < end);
	}
	lost += outstanding;
	printf("sent=%llu received=%llu ok=%llu lost=%llu slow=%llu late=%llu senderr=%llu qps=%.0f p50_us=%.1f p99_us=%.1f worst_us=%.1f\n",
		(unsigned long long)sent, (unsigned long long)received, (unsigned long long)ok, (unsigned long long)lost, (unsigned long long)slow,
		(unsigned long long)late, (unsigned long long)send_errors, received / opt.seconds, percentile_us(.5), percentile_us(.99), worst / 1e3);
	return 0;
}
