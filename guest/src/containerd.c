/* containerd: starting it, and the command lines of its ctr. */
#include "spawn.h"
#include "stream.h"
#include "supervisor.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#define BINARY "/usr/bin/containerd"
#define CTR "/usr/bin/ctr"
#define OPTIONS "/etc/containerd/runtime-config.toml"
#define ANSWER_LIMIT 110 /* seconds; the keeper ends the talk after 120 */
#define METADATA "/var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db"

const char *namespace_of(const struct container *container)
{
    return *container->namespace ? container->namespace : CONTAINERD_NAMESPACE;
}

/* The string value of `key = "..."` in the few lines of runtime-config.toml, or NULL. */
static char *option(const char *text, const char *key)
{
    for (const char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        line += strspn(line, " \t");
        if (!starts_with(line, key))
            continue;
        const char *at = line + strlen(key) + strspn(line + strlen(key), " \t");
        if (*at != '=')
            continue;
        at += 1 + strspn(at + 1, " \t");
        if (*at == '"' || *at == '\'')
            return format("%.*s", (int)strcspn(at + 1, (char[]){*at, '\n', 0}), at + 1);
    }
    return NULL;
}

/* stdout and stderr are "stdout", "stderr" (the console), or a file; our own log when nothing is said. */
static int stream(const char *where, const char *log)
{
    if (!where)
        return stream_writer(log);
    if (!*where || !strcmp(where, "stderr") || !strcmp(where, "stdout"))
        return fcntl(!strcmp(where, "stdout") ? STDOUT_FILENO : STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    return log_open(where, false);
}

int containerd_start(struct daemon *containerd)
{
    scoped_free char *text = read_file(OPTIONS, 1 << 16, NULL);
    scoped_free char *options = option(text, "cliopts"), *out = option(text, "stdout"), *err = option(text, "stderr");
    const char *argv[64] = {BINARY};
    size_t argc = 1;
    char *save;
    for (char *word = options ? strtok_r(options, " \t", &save) : NULL; word && argc < COUNT(argv) - 1;
         word = strtok_r(NULL, " \t", &save))
        argv[argc++] = word;
    /* Its chatter would fill the console. */
    scoped_fd out_fd = stream(out, CONTAINERD_OUT), err_fd = stream(err, CONTAINERD_ERR);
    unlink(CONTAINERD_SOCKET);
    containerd->pid = spawn(&(struct spawn){.argv = argv, .out = &out_fd, .err = &err_fd});
    containerd->since = now();
    containerd->due = containerd->pid < 0 ? now() + 1 : 0;
    if (containerd->pid < 0) {
        containerd->pid = 0;
        return -1;
    }
    note_process("containerd", containerd->pid, "");
    return 0;
}

int containerd_wait(struct daemon *containerd, double seconds, int *status)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = CONTAINERD_SOCKET};
    double end = now() + seconds;
    while (now() < end) {
        scoped_fd sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (sock >= 0 && connect(sock, (struct sockaddr *)&address, sizeof(address)) == 0)
            return 0;
        if (waitpid(containerd->pid, status, WNOHANG) != 0) {
            containerd->pid = 0;
            return -1;
        }
        pause_ms(20);
    }
    return -1;
}

void containerd_tail(struct tail *tail)
{
    copier_settle(CONTAINERD_OUT, CONTAINERD_ERR);
    tail_read(tail, NULL, CONTAINERD_ERR);
}

static void add(struct command *command, const char *word)
{
    command->argv[command->argc++] = word;
    command->argv[command->argc] = NULL;
}

static void add_made(struct command *command, char *word)
{
    command->made[command->made_count++] = word;
    add(command, word);
}

void containerd_args(struct command *command, const char *verb, const struct container *container,
                     const char *pid_file)
{
    *command = (struct command){.task = {.verb = verb, .container = container, .pid_file = pid_file,
                                         .socket = CONTAINERD_SOCKET, .runtime = "",
                                         .seconds = ANSWER_LIMIT}};
    add(command, CTR);
    add(command, "--namespace");
    add(command, namespace_of(container));
    bool run = strcmp(verb, "run") == 0, start = strcmp(verb, "start") == 0;
    if (!run)
        add(command, "task");
    add(command, verb);
    if (run || start) {
        add(command, "--detach");
        add(command, "--pid-file");
        add(command, pid_file);
        add(command, "--log-uri");
        add_made(command, format("binary:///usr/bin/service?logger=%s", container->name));
    }
    if (run) {
        add(command, "--config");
        add_made(command, format("/etc/linuxkit/containerd/%s.json", container->name));
        command->task.spec = command->made[command->made_count - 1];
        struct runtime runtime = runtime_find();
        if (runtime.path && strcmp(base_name(runtime.path), "runc") != 0) {
            add(command, "--runc-binary");
            add(command, runtime.path);
            command->task.runtime = runtime.path;
        }
    }
    add(command, container->name);
}

void command_free(struct command *command)
{
    for (size_t i = 0; i < command->made_count; i++)
        free(command->made[i]);
    command->made_count = 0;
}

int containerd_end_status(const char *path, int ctr_status)
{
    /* Newer ones only warn and end with 0, older ones end with the task's status and say nothing. */
    static const char warning[] = "non-zero exit code ";
    scoped_free char *text = read_file(path, 1 << 16, NULL);
    const char *at = text ? strstr(text, warning) : NULL;
    if (at)
        return (int)strtol(at + strlen(warning), NULL, 10) & 0xff;
    if (text && strstr(text, "ctr: "))
        return -1;
    return ctr_status;
}

bool containerd_forgot(const char *path)
{
    scoped_free char *text = read_file(path, 1 << 16, NULL);
    return text && strstr(text, "not found");
}

void containerd_remove(const char *namespace, const char *id)
{
    const char *const task[] = {CTR, "--namespace", namespace, "task", "delete", "--force", id, NULL};
    const char *const container[] = {CTR, "--namespace", namespace, "containers", "delete", id, NULL};
    scoped_fd null = log_open("/dev/null", false);
    spawn_wait(&(struct spawn){.argv = task, .out = &null, .err = &null});
    spawn_wait(&(struct spawn){.argv = container, .out = &null, .err = &null});
}

static void forget(const char *namespace)
{
    static const char list[] = STATE_DIR "/stale";
    scoped_fd out = log_open(list, true);
    const char *const ask[] = {CTR, "--namespace", namespace, "containers", "list", "--quiet", NULL};
    if (spawn_wait(&(struct spawn){.argv = ask, .out = &out}) != 0)
        return;
    scoped_free char *text = read_file(list, 1 << 20, NULL);
    char *save;
    for (char *id = text ? strtok_r(text, "\n", &save) : NULL; id; id = strtok_r(NULL, "\n", &save))
        containerd_remove(namespace, id);
    unlink(list);
}

void containerd_forget(const struct plan *plan)
{
    for (size_t i = 0; i < plan->container_count; i++) {
        const struct container *at = &plan->containers[i];
        bool seen = at->kind != SERVICE;
        for (size_t j = 0; j < i && !seen; j++)
            seen = plan->containers[j].kind == SERVICE && !strcmp(namespace_of(&plan->containers[j]), namespace_of(at));
        if (!seen)
            forget(namespace_of(at));
    }
}

int hook_main(const struct plan *plan, const char *name)
{
    const struct container *container = plan_find(plan, SERVICE, name);
    char state[65536], error[ERROR_MAX] = "";
    size_t used = 0;
    for (ssize_t got; used < sizeof(state) - 1 && (got = read(0, state + used, sizeof(state) - 1 - used)) > 0;)
        used += (size_t)got;
    state[used] = 0;
    const char *at = strstr(state, "\"pid\"");
    at = at ? at + strlen("\"pid\"") + strspn(at + strlen("\"pid\""), " :\t\n") : "";
    pid_t pid = (pid_t)strtol(at, NULL, 10);
    if (!container || pid <= 0)
        snprintf(error, sizeof(error), "%s: %s", name, container ? "no pid in the state" : "not in the plan");
    else if (prepare_process(container, pid, error) == 0)
        return 0;
    fprintf(stderr, "%s\n", error);
    return 1;
}

bool containerd_has_past(void)
{
    return exists(METADATA);
}
