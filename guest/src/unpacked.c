/* Whether Linux unpacked all of the initramfs: it goes on without a word when the memory was too small for it. */
#include "setup.h"
#include "util.h"

#include <sys/vfs.h>

/* What the builder puts in front of everything else, and behind it. */
#define BEGIN ".initramfs-begin"
#define END ".initramfs-end"
#define TMPFS 0x01021994UL

const char *initramfs_lost(const char *root)
{
    scoped_free char *begin = format("%s/" BEGIN, root), *end = format("%s/" END, root);
    bool whole = !exists(begin) || exists(end);
    struct statfs info;
    unlink(begin);
    unlink(end);
    if (!whole)
        return "the initramfs did not unpack whole, and what came last is missing: give the machine more memory";
    /* A file that finds no room for its name is left out, and nothing stops. */
    if (statfs(root, &info) == 0 && (unsigned long)info.f_type == TMPFS &&
        ((info.f_files && !info.f_ffree) || (info.f_blocks && !info.f_bfree)))
        return "the initramfs fills its file system to the last, and something may be missing: "
               "give the machine more memory";
    return NULL;
}
