/* A machine's services by vsock, tried from inside: vsudd on port 1024, host-timesync-daemon on 0xf3a4. vsockcheck SOCKET:
 * prints "vsock ok" when both do what they should. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
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

/* Answers one connection with what it says, in capitals, after it has said all. */
static void shout(int listener)
{
    char text[64];
    int fd = accept(listener, NULL, NULL);
    ssize_t used = 0, got;
    while ((got = read(fd, text + used, sizeof(text) - (size_t)used)) > 0)
        used += got;
    for (ssize_t i = 0; i < used; i++)
        text[i] = (char)(text[i] >= 'a' && text[i] <= 'z' ? text[i] - 32 : text[i]);
    (void)!write(fd, text, (size_t)used);
}

int main(int argc, char **argv)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char reply[64] = "";
    ssize_t used = 0, got;
    if (argc != 2)
        return 2;
    strncpy(address.sun_path, argv[1], sizeof(address.sun_path) - 1);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(listener, 1) < 0)
        return fault("listen");
    if (fork() == 0) {
        shout(listener);
        _exit(0);
    }
    int fd = dial(1024);
    if (fd < 0)
        return fault("port 1024");
    (void)!write(fd, "hello", 5);
    shutdown(fd, SHUT_WR);
    while ((got = read(fd, reply + used, sizeof(reply) - 1 - (size_t)used)) > 0)
        used += got;
    if (strcmp(reply, "HELLO") != 0)
        return fault("not what was said");
    struct timeval past = {.tv_sec = 1000000000};
    if (settimeofday(&past, NULL) < 0)
        return fault("settimeofday");
    if (time(NULL) > 1100000000 || dial(0xf3a4) < 0)
        return fault("port 0xf3a4");
    for (int tries = 0; tries < 50 && time(NULL) < 1700000000; tries++)
        usleep(100000);
    if (time(NULL) < 1700000000)
        return fault("the clock was not set");
    printf("vsock ok\n");
    return 0;
}
