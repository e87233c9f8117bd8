/* Sockets between two network namespaces, under test: what is sent through them comes back, or it is a fault.
 *
 *   netstress LEFT RIGHT LEFT4 RIGHT4 LEFT6 RIGHT6 [MATCH]
 *
 * LEFT and RIGHT are namespaces (/run/netns/NAME) with those addresses. A case is a protocol (tcp4, tcp6, udp4, udp6, unix), an amount
 * (short, long), a way of connecting (one, ten in one process, five processes at once) and a direction (the server on the
 * right, or reversed). All of them run one after another; then those of five processes all at once. MATCH runs only the
 * cases whose name contains it. Prints a line for each fault, and then how many cases were good.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PROTOCOLS = 5, AMOUNTS = 2, WAYS = 3, DIRECTIONS = 2, CASES = PROTOCOLS * AMOUNTS * WAYS * DIRECTIONS };
enum { TEN = 10, FIVE = 5, PIECE = 4096, SECONDS = 10 };

static const char *const protocols[] = {"tcp4", "tcp6", "udp4", "udp6", "unix"};
static const char *const amounts[] = {"short", "long"};
static const char *const ways[] = {"one", "ten", "five"};
static const char *const directions[] = {"forward", "reverse"};

struct test {
    int protocol, amount, way, direction, number;
};

static int spaces[2];         /* left, right */
static const char *where[4];  /* left4, right4, left6, right6 */

static struct test test_of(int number)
{
    struct test t = {.number = number};
    t.direction = number % DIRECTIONS, number /= DIRECTIONS;
    t.way = number % WAYS, number /= WAYS;
    t.amount = number % AMOUNTS, number /= AMOUNTS;
    t.protocol = number;
    return t;
}

static const char *name_of(struct test t)
{
    static char text[64];
    snprintf(text, sizeof text, "%s-%s-%s-%s", protocols[t.protocol], amounts[t.amount], ways[t.way],
             directions[t.direction]);
    return text;
}

static int datagrams(struct test t)
{
    return t.protocol == 2 || t.protocol == 3;
}

static _Noreturn void die(struct test t, const char *what)
{
    printf("FAULT %s: %s: %m\n", name_of(t), what);
    fflush(stdout);
    _exit(1);
}

/* The server's address; its length. */
static socklen_t address_of(struct test t, struct sockaddr_storage *out)
{
    const char *host = where[(t.protocol & 1) * 2 + (t.direction ? 0 : 1)];
    memset(out, 0, sizeof *out);
    if (t.protocol == 4) {
        struct sockaddr_un *un = (struct sockaddr_un *)out;
        un->sun_family = AF_UNIX;
        snprintf(un->sun_path, sizeof un->sun_path, "/tmp/stress-%d", t.number);
        return sizeof *un;
    }
    in_port_t port = htons((in_port_t)(20000 + t.number));
    if (t.protocol & 1) {
        struct sockaddr_in6 *in = (struct sockaddr_in6 *)out;
        in->sin6_family = AF_INET6, in->sin6_port = port;
        inet_pton(AF_INET6, host, &in->sin6_addr);
        return sizeof *in;
    }
    struct sockaddr_in *in = (struct sockaddr_in *)out;
    in->sin_family = AF_INET, in->sin_port = port;
    inet_pton(AF_INET, host, &in->sin_addr);
    return sizeof *in;
}

/* A socket that is in the server's or the client's namespace, whoever uses it. */
static int open_in(struct test t, int server)
{
    struct sockaddr_storage address;
    struct timeval limit = {.tv_sec = SECONDS};
    if (setns(spaces[server == !t.direction], CLONE_NEWNET) < 0) {
        die(t, "setns");
    }
    address_of(t, &address);
    int fd = socket(address.ss_family, (datagrams(t) ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0), one = 1;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
        (!server && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0) ||
        (!server && setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) < 0)) {
        die(t, "socket");
    }
    return fd;
}

static int send_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
        if (n <= 0) {
            return -1;
        }
        data += n, size -= (size_t)n;
    }
    return 0;
}

static _Noreturn void serve(struct test t, int fd)
{
    char data[PIECE];
    signal(SIGCHLD, SIG_IGN);
    if (datagrams(t)) {
        for (;;) {
            struct sockaddr_storage from;
            socklen_t length = sizeof from;
            ssize_t n = recvfrom(fd, data, sizeof data, 0, (struct sockaddr *)&from, &length);
            if (n >= 0) {
                sendto(fd, data, (size_t)n, 0, (struct sockaddr *)&from, length);
            }
        }
    }
    for (;;) {
        int peer = accept(fd, NULL, NULL);
        if (peer >= 0 && fork() == 0) {
            ssize_t n;
            while ((n = recv(peer, data, sizeof data, 0)) > 0 && send_all(peer, data, (size_t)n) == 0) {
            }
            _exit(0);
        }
        close(peer);
    }
}

/* One piece there and back. */
static void exchange(struct test t, int fd, unsigned seed, size_t size)
{
    char sent[PIECE], got[PIECE];
    for (size_t i = 0; i < size; i++) {
        seed = seed * 1103515245 + 12345;
        sent[i] = (char)(seed >> 16);
    }
    if (send_all(fd, sent, size) < 0) {
        die(t, "send");
    }
    for (size_t done = 0; done < size;) {
        ssize_t n = recv(fd, got + done, size - done, 0);
        if (n <= 0) {
            die(t, "receive");
        }
        done += (size_t)n;
    }
    if (memcmp(sent, got, size) != 0) {
        die(t, "something else came back");
    }
}

/* One process of a client: all its connections at once, in turn. */
static _Noreturn void ask(struct test t, unsigned who)
{
    struct sockaddr_storage address;
    int fds[TEN], count = t.way == 1 ? TEN : 1, rounds = t.amount ? 12 : 2;
    socklen_t length = address_of(t, &address);
    for (int i = 0; i < count; i++) {
        fds[i] = open_in(t, 0);
        if (connect(fds[i], (struct sockaddr *)&address, length) < 0) {
            die(t, "connect");
        }
    }
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < count; i++) {
            size_t most = datagrams(t) ? 1200 : PIECE;
            exchange(t, fds[i], who * 1000003 + (unsigned)(i * 1009 + round), t.amount ? most : 100);
        }
    }
    _exit(0);
}

/* Start a case's clients; how many processes there are. */
static int start(struct test t, pid_t *server)
{
    struct sockaddr_storage address;
    socklen_t length = address_of(t, &address);
    int fd = open_in(t, 1), clients = t.way == 2 ? FIVE : 1;
    if (bind(fd, (struct sockaddr *)&address, length) < 0 || (!datagrams(t) && listen(fd, 64) < 0)) {
        die(t, "bind");
    }
    fflush(stdout);
    if ((*server = fork()) == 0) {
        serve(t, fd);
    }
    close(fd);
    for (int i = 0; i < clients; i++) {
        if (fork() == 0) {
            ask(t, (unsigned)(t.number * FIVE + i));
        }
    }
    return clients;
}

/* Wait for that many clients; how many of them failed. Servers don't end by themselves. */
static int wait_for(int clients)
{
    int failed = 0, status;
    while (clients-- > 0 && wait(&status) > 0) {
        failed += status != 0;
    }
    return failed;
}

int main(int argc, char **argv)
{
    int good = 0, bad = 0, together = 0;
    pid_t servers[CASES] = {0};
    if (argc < 7) {
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 0; i < 2; i++) {
        if ((spaces[i] = open(argv[1 + i], O_RDONLY | O_CLOEXEC)) < 0) {
            perror(argv[1 + i]);
            return 2;
        }
    }
    for (int i = 0; i < 4; i++) {
        where[i] = argv[3 + i];
    }
    for (int n = 0; n < CASES; n++) {
        struct test t = test_of(n);
        if (argc > 7 && !strstr(name_of(t), argv[7])) {
            continue;
        }
        int failed = wait_for(start(t, &servers[0]));
        kill(servers[0], SIGKILL);
        waitpid(servers[0], NULL, 0);
        *(failed ? &bad : &good) += 1;
    }
    for (int n = 0; argc <= 7 && n < CASES; n++) {
        struct test t = test_of(n);
        servers[n] = 0;
        if (t.way == 2) {
            t.number += CASES;
            together += start(t, &servers[n]);
        }
    }
    int mixed = wait_for(together);
    for (int n = 0; argc <= 7 && n < CASES; n++) {
        if (servers[n] > 0) {
            kill(servers[n], SIGKILL);
        }
    }
    printf("%d cases good, %d bad; %d clients at once, %d of them bad\n", good, bad, together, mixed);
    return bad || mixed;
}
