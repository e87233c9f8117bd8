/* What is meant for the host, tried from inside by vsock_loopback: vsudd on port 1024, host-timesync-daemon on 0xf3a4.
 * vsockcheck SOCKET: prints "vsock ok" when both refuse, and a server of its own that looks at nobody does not. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <linux/vm_sockets.h>

static int fault(const char *what)
{
    printf("vsock fault: %s: %s\n", what, strerror(errno));
    return 1;
}

/* Waits for the service to listen, for some seconds. */
static int dial(unsigned port)
{
    struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_LOCAL, .svm_port = port};
    for (int tries = 0; tries < 100; tries++) {
        int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
        if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
            return fd;
        int error = errno;
        if (fd >= 0)
            close(fd);
        usleep(100000);
        errno = error;
    }
    return -1;
}

/* Does a server behind that port answer us? It is asked for a word. */
static bool answered(unsigned port)
{
    char reply[64] = "";
    ssize_t used = 0, got;
    int fd = dial(port);
    if (fd < 0)
        return false;
    (void)!write(fd, "hello", 5);
    shutdown(fd, SHUT_WR);
    while ((got = read(fd, reply + used, sizeof(reply) - 1 - (size_t)used)) > 0)
        used += got;
    close(fd);
    return strcmp(reply, "hello") == 0;
}

/* Says what it hears, to one after the other. */
static pid_t echo(int listener)
{
    pid_t pid = listen(listener, 8) < 0 ? -1 : fork();
    while (pid == 0) {
        char text[64];
        ssize_t got;
        int fd = accept(listener, NULL, NULL);
        while (fd >= 0 && (got = read(fd, text, sizeof(text))) > 0)
            (void)!write(fd, text, (size_t)got);
        close(fd);
    }
    return pid;
}

int main(int argc, char **argv)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct sockaddr_vm open_to_all = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = 1025};
    if (argc != 2)
        return 2;
    strncpy(address.sun_path, argv[1], sizeof(address.sun_path) - 1);
    int behind = socket(AF_UNIX, SOCK_STREAM, 0), careless = socket(AF_VSOCK, SOCK_STREAM, 0);
    if (bind(behind, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        bind(careless, (struct sockaddr *)&open_to_all, sizeof(open_to_all)) < 0 || echo(behind) < 0 || echo(careless) < 0)
        return fault("listen");
    if (!answered(1025)) /* the way in is there: who does not look at the peer is reached by it */
        return fault("port 1025 does not answer");
    int reached = dial(1024);
    if (reached < 0)
        return fault("vsudd does not listen");
    close(reached);
    if (answered(1024))
        return fault("vsudd lets a process of the machine in");
    struct timeval real, past = {.tv_sec = 1000000000};
    gettimeofday(&real, NULL);
    if (settimeofday(&past, NULL) < 0)
        return fault("settimeofday");
    if (dial(0xf3a4) < 0)
        return fault("host-timesync-daemon does not listen");
    sleep(1);
    if (time(NULL) > 1100000000)
        return fault("a process of the machine had the clock set");
    settimeofday(&real, NULL);
    printf("vsock ok\n");
    return 0;
}
