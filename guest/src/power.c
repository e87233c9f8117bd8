/* poweroff, reboot, halt, rc.shutdown: ask PID 1, or with -f the kernel. */
#include "applets.h"
#include "command.h"
#include "loop.h"
#include "util.h"

#include <errno.h>
#include <linux/reboot.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>

static const struct action {
    const char *name;
    int signal, command;
} actions[] = {
    {"poweroff", SIGUSR2, LINUX_REBOOT_CMD_POWER_OFF},
    {"reboot", SIGTERM, LINUX_REBOOT_CMD_RESTART},
    {"halt", SIGUSR1, LINUX_REBOOT_CMD_HALT},
};

int power_main(int argc, char **argv)
{
    size_t count;
    bool force = false, ignored = false;
    const struct flag flags[] = {
        {.names = "f force", .yes = &force},
        /* what sysvinit and systemd have besides: nothing to do for them here */
        {.names = "d h i n p w no-wall no-wtmp no-sync poweroff", .yes = &ignored},
    };
    program_is(base_name(argv[0]), "rc.shutdown [-f] [poweroff|reboot|halt|noop]");
    scoped_free const char **left = command_read(flags, COUNT(flags), argc, argv, &count);
    const char *word = count ? left[count - 1] : base_name(argv[0]);
    if (strcmp(word, "rc.shutdown") == 0)
        word = "poweroff";
    if (strcmp(word, "noop") == 0)
        return 0; /* the init that called us halts by itself */
    for (size_t i = 0; i < COUNT(actions); i++) {
        if (strcmp(word, actions[i].name) != 0)
            continue;
        if (force)
            sync();
        if (force ? reboot(actions[i].command) == 0 : kill(1, actions[i].signal) == 0)
            return 0;
        fprintf(stderr, "%s: %s\n", word, strerror(errno));
        return 1;
    }
    usage("%s: none of poweroff, reboot, halt, noop", word);
}
