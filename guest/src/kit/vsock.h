/* Sockets between a virtual machine and its host. */
#pragma once

/* Listens at an address of this machine (VMADDR_CID_ANY: all it has). -1 with errno. */
int vsock_listen(unsigned cid, unsigned port);
