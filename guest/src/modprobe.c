/* modprobe [-abqn] [-d FOLDER] NAME|ALIAS [PARAMETER=VALUE ...]; with -a every word is a name. The kernel calls it, too. */
#include "applets.h"
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
    bool all = false, quiet = false, dry = false;
    const char *folder = NULL;
    int option;
    while ((option = getopt(argc, argv, "+abqnsvd:")) != -1) {
        all |= option == 'a';
        quiet |= option == 'q';
        dry |= option == 'n';
        if (option == 'd')
            folder = optarg;
        if (option == '?')
            return 2;
    }
    if (optind == argc) {
        fprintf(stderr, "usage: modprobe [-abqn] [-d FOLDER] NAME [PARAMETER=VALUE ...]\n");
        return 2;
    }
    scoped_modules index;
    if ((folder ? modules_open(&index, folder) : modules_open_running(&index)) < 0) {
        if (!quiet)
            fprintf(stderr, "modprobe: no modules.dep for this kernel\n");
        return 1;
    }
    index.dry = dry;
    if (all) {
        int result = 0;
        for (int i = optind; i < argc; i++)
            result |= load(&index, argv[i], "", quiet);
        return result;
    }
    scoped_free char *parameters = must_dup("");
    for (int i = optind + 1; i < argc; i++) {
        char *longer = format("%s%s%s", parameters, *parameters ? " " : "", argv[i]);
        free(parameters);
        parameters = longer;
    }
    return load(&index, argv[optind], parameters, quiet);
}
