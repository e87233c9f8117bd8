/* Which OCI runtime there is, and its command lines. */
#include "service.h"
#include "util.h"

#include <string.h>

struct runtime runtime_find(void)
{
    /* crun first: starting it costs a twentieth of what starting runc does. linuxkit.runtime=runc turns it round. */
    static const char *const paths[] = {"/usr/bin/crun", "/usr/bin/runc", "/usr/sbin/runc", "/usr/local/bin/runc"};
    scoped_free char *wanted = booted_value("linuxkit.runtime");
    struct runtime runtime = {.debug = booted_with("linuxkit.runc_debug=1")};
    for (size_t i = 0; i < COUNT(paths); i++)
        if (access(paths[i], X_OK) == 0 && (!runtime.path || (wanted && !strcmp(wanted, base_name(paths[i])) &&
                                                              strcmp(wanted, base_name(runtime.path)))))
            runtime.path = paths[i];
    return runtime;
}

char *pid_file_of(const struct container *container)
{
    return format(STATE_DIR "/%s.pid", container->name);
}

void runtime_args(const struct runtime *runtime, const char *verb, const struct container *container,
                  const char *pid_file, const char *argv[RUNTIME_ARGS])
{
    size_t n = 0;
    bool detached = strcmp(verb, "run-detached") == 0;
    argv[n++] = runtime->path;
    if (runtime->debug)
        argv[n++] = "--debug";
    argv[n++] = detached ? "run" : verb;
    if (detached)
        argv[n++] = "--detach";
    if (strcmp(verb, "delete") == 0)
        argv[n++] = "--force";
    if (detached || strcmp(verb, "run") == 0 || strcmp(verb, "create") == 0) {
        argv[n++] = "--bundle";
        argv[n++] = container->directory;
        if (pid_file) {
            argv[n++] = "--pid-file";
            argv[n++] = pid_file;
        }
    }
    argv[n++] = container->name;
    argv[n] = NULL;
}
