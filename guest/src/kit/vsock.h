/* Sockets between a virtual machine and its host. */
#pragma once

/* Listens at an address of this machine (VMADDR_CID_ANY: all it has). -1 with errno. */
int vsock_listen(unsigned cid, unsigned port);
/* The next connection, of the host only: any process of the machine can reach the same port by its own address or by
 * the local one (vsock_loopback), and is turned away, which `program` says. -1 with errno; EPERM: it was turned away. */
int vsock_accept(int listener, const char *program);
