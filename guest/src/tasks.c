/* containerd.services.containers.v1 and containerd.services.tasks.v1 of containerd's API. */
#include "tasks.h"
#include "grpc.h"
#include "service.h"
#include "util.h"

#include <stdio.h>

#define CONTAINERS "/containerd.services.containers.v1.Containers/"
#define TASKS "/containerd.services.tasks.v1.Tasks/"
#define SHIM "io.containerd.runc.v2"
#define SPEC_TYPE "types.containerd.io/opencontainers/runtime-spec/1/Spec"
#define OPTIONS_TYPE "containerd.runc.v1.Options"

/* google.protobuf.Any */
static void put_any(struct message *message, unsigned field, const char *type, const void *bytes, size_t length)
{
    scoped_message any = {0};
    put_text(&any, 1, type);
    put_bytes(&any, 2, bytes, length);
    put_message(message, field, &any);
}

static int create_container(struct grpc *grpc, const struct task_call *call, const char *namespace)
{
    scoped_message request = {0}, container = {0}, runtime = {0}, options = {0};
    size_t length;
    scoped_free char *spec = read_file(call->spec, GRPC_MESSAGE_MAX / 2, &length);
    if (!spec)
        return -1;
    put_text(&runtime, 1, SHIM);
    if (*call->runtime) {
        put_text(&options, 6, call->runtime);
        put_any(&runtime, 2, OPTIONS_TYPE, options.bytes, options.length);
    }
    put_text(&container, 1, call->container->name);
    put_message(&container, 4, &runtime);
    put_any(&container, 5, SPEC_TYPE, spec, length);
    put_message(&request, 1, &container);
    return grpc_call(grpc, CONTAINERS "Create", namespace, &request, NULL);
}

static int create_task(struct grpc *grpc, const char *name, const char *namespace)
{
    scoped_message request = {0};
    scoped_free char *log = format("binary:///usr/bin/service?logger=%s", name);
    put_text(&request, 1, name);
    put_text(&request, 5, log);
    put_text(&request, 6, log);
    return grpc_call(grpc, TASKS "Create", namespace, &request, NULL);
}

/* Most requests and answers have the container's name, or the process's number, in their first field. */
static int simple(struct grpc *grpc, const char *method, const char *name, const char *namespace,
                  struct message *response)
{
    scoped_message request = {0};
    put_text(&request, 1, name);
    return grpc_call(grpc, method, namespace, &request, response);
}

static int start_task(struct grpc *grpc, const struct task_call *call, const char *namespace)
{
    scoped_message response = {0};
    if (create_task(grpc, call->container->name, namespace) != 0)
        return -1;
    if (simple(grpc, TASKS "Start", call->container->name, namespace, &response) == 0) {
        scoped_free char *pid = format("%u", (unsigned)get_number(&response, 1, 0));
        if (write_file(call->pid_file, pid) == 0)
            return 0;
    }
    simple(grpc, TASKS "Delete", call->container->name, namespace, NULL);
    return -1;
}

int task_do(const void *what)
{
    const struct task_call *call = what;
    const char *namespace = namespace_of(call->container), *name = call->container->name;
    bool run = *call->verb == 'r';
    scoped_grpc grpc;
    if (grpc_open(&grpc, call->socket, call->seconds) < 0)
        return -1;
    if (*call->verb == 'd') {
        scoped_message response = {0};
        /* DeleteResponse: id, pid, exit_status, exited_at */
        return simple(&grpc, TASKS "Delete", name, namespace, &response) != 0 ? -1
                                                                             : (int)(get_number(&response, 3, 0) & 0xff);
    }
    if (run && create_container(&grpc, call, namespace) != 0)
        return -1;
    if (start_task(&grpc, call, namespace) == 0)
        return 0;
    if (run)
        simple(&grpc, CONTAINERS "Delete", name, namespace, NULL);
    return -1;
}
