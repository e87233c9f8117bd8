/* modprobe [-abqn] [-d FOLDER] NAME|ALIAS [PARAMETER=VALUE ...]; with -a every word is a name. The kernel calls it, too. */
#include "applets.h"
#include "command.h"
#include "modules.h"
#include "util.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int load(struct modules *index, const char *name, const char *parameters, bool quiet)
{
    if (modules_load(index, name, parameters) == 0)
        return 0;
    if (!quiet)
        fprintf(stderr, "modprobe: %s: %s\n", name, errno == ENOENT ? "no such module" : strerror(errno));
    return 1;
}

int modprobe_main(int argc, char **argv)
{
    bool all = false, quiet = false, dry = false, ignored = false;
    const char *folder = NULL;
    const struct flag flags[] = {
        {.names = "a all", .yes = &all},
        {.names = "q quiet", .yes = &quiet},
        {.names = "n dry-run show", .yes = &dry},
        {.names = "d dirname", .text = &folder},
        {.names = "b s v use-blacklist syslog verbose", .yes = &ignored}, /* kmod's: they change nothing here */
    };
    program_is("modprobe", "modprobe [-abqn] [-d FOLDER] NAME [PARAMETER=VALUE ...]");
    int at = command_start(flags, COUNT(flags), argc, argv);
    if (at == argc)
        usage("which module?");
    scoped_modules index;
    if ((folder ? modules_open(&index, folder) : modules_open_running(&index)) < 0) {
        if (!quiet)
            fprintf(stderr, "modprobe: no modules.dep for this kernel\n");
        return 1;
    }
    index.dry = dry;
    if (all) {
        int result = 0;
        for (int i = at; i < argc; i++)
            result |= load(&index, argv[i], "", quiet);
        return result;
    }
    scoped_free char *parameters = must_dup("");
    for (int i = at + 1; i < argc; i++) {
        char *longer = format("%s%s%s", parameters, *parameters ? " " : "", argv[i]);
        free(parameters);
        parameters = longer;
    }
    return load(&index, argv[at], parameters, quiet);
}
