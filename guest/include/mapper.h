/* Loop devices and device-mapper, by the kernel's own calls. */
#pragma once

#include "block.h"

/* Attaches a file to a loop device: to `wanted` (/dev/loop3), or when it is NULL to a free one. `last_close` lets go of
 * it when nobody has it open any more. Returns its open descriptor, or -1 after a message; attached to the same file
 * already is fine. */
int loop_attach(struct disk *loop, const char *wanted, const char *file, bool last_close);

/* A device /dev/mapper/NAME whose blocks lie encrypted on `below`, with 256 bits of key: dm-crypt, as cryptsetup's type
 * plain does it with the cipher aes-cbc-essiv:sha256. 0, or -1 after a message. */
int crypt_open(char path[static 300], const char *name, const struct disk *below, const unsigned char key[static 32]);
