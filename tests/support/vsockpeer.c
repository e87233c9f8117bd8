/* vsock over unix sockets, for programs that are linked with --wrap of these: port N is the socket $VSOCK_FOLDER/N, and
 * the one who connects has the CID $VSOCK_PEER. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <linux/vm_sockets.h>

int __real_socket(int family, int type, int protocol);
int __real_bind(int fd, const struct sockaddr *address, socklen_t length);
int __real_accept4(int fd, struct sockaddr *address, socklen_t *length, int flags);

int __wrap_socket(int family, int type, int protocol)
{
    return __real_socket(family == AF_VSOCK ? AF_UNIX : family, type, protocol);
}

int __wrap_bind(int fd, const struct sockaddr *address, socklen_t length)
{
    struct sockaddr_un place = {.sun_family = AF_UNIX};
    if (address->sa_family != AF_VSOCK)
        return __real_bind(fd, address, length);
    unsigned port = ((const struct sockaddr_vm *)address)->svm_port;
    snprintf(place.sun_path, sizeof(place.sun_path), "%s/%u", getenv("VSOCK_FOLDER"), port);
    return __real_bind(fd, (const struct sockaddr *)&place, sizeof(place));
}

int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
    int client = __real_accept4(fd, NULL, NULL, flags);
    if (client >= 0 && address) {
        *(struct sockaddr_vm *)address =
            (struct sockaddr_vm){.svm_family = AF_VSOCK, .svm_cid = (unsigned)atoi(getenv("VSOCK_PEER"))};
        *length = sizeof(struct sockaddr_vm);
    }
    return client;
}
