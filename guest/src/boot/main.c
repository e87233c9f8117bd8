/* The boot initrd's one program: /init, and /sbin/modprobe for the kernel's own requests. */
#include "applets.h"
#include "util.h"

#include <string.h>

int main(int argc, char **argv)
{
    return argc > 0 && !strcmp(base_name(argv[0]), "modprobe") ? modprobe_main(argc, argv) : bootstage_main(argc, argv);
}
