/* Sockets between a virtual machine and its host: Linux's vsock(7). */
#define _GNU_SOURCE
#include "vsock.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <linux/vm_sockets.h>
#include <unistd.h>

int vsock_listen(unsigned cid, unsigned port)
{
    struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port};
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 128) < 0)) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

int vsock_accept(int listener, const char *program)
{
    struct sockaddr_vm peer = {.svm_family = AF_UNSPEC};
    socklen_t length = sizeof(peer);
    int fd = accept4(listener, (struct sockaddr *)&peer, &length, SOCK_CLOEXEC);
    if (fd < 0 || (length >= sizeof(peer) && peer.svm_family == AF_VSOCK && peer.svm_cid == VMADDR_CID_HOST))
        return fd;
    fprintf(stderr, "%s: a connection from CID %u is refused: only the host's are taken\n", program, peer.svm_cid);
    close(fd);
    errno = EPERM;
    return -1;
}
