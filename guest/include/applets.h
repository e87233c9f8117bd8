/* The programs that this one is, by the name it is called with. */
#pragma once

#define HALT_FILE "/run/linuxkit/halted" /* why the boot stopped, when onfail: halt stopped it */

int init_main(int argc, char **argv);
int power_main(int argc, char **argv);
int modprobe_main(int argc, char **argv);
int helper_main(int argc, char **argv); /* by the path of the file, /sbin/usermode-helper, whatever argv[0] says */
int service_main(int argc, char **argv);
int bootstage_main(int argc, char **argv); /* of the other program, src/boot/ */
