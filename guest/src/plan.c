/* The plan: lines of tab-separated fields, each checked where it is read. */
#include "plan.h"
#include "util.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define FIELDS 8
#define PLAN_LIMIT (4 << 20)
#define DAY 86400

/* One line of the file; fields[0] is its word. */
struct line {
    char *fields[FIELDS];
    size_t count;
};

/* Undoes \\ \t \n in place; false on any other escape. */
static bool unescape(char *text)
{
    char *to = text;
    for (const char *at = text; *at; at++) {
        char c = *at;
        if (c == '\\') {
            at++;
            if (*at != '\\' && *at != 't' && *at != 'n')
                return false;
            c = *at == 't' ? '\t' : *at == 'n' ? '\n' : '\\';
        }
        *to++ = c;
    }
    *to = 0;
    return true;
}

static const char *split(char *text, struct line *line)
{
    line->count = 0;
    for (char *field = text; field;) {
        char *tab = strchr(field, '\t');
        if (tab)
            *tab++ = 0;
        if (line->count == FIELDS)
            return "too many fields";
        if (!unescape(field))
            return "unknown escape";
        line->fields[line->count++] = field;
        field = tab;
    }
    return NULL;
}

/* A name becomes a container id, a file name and an argument: letters, digits and _.- only, no dot in front. */
static bool good_name(const char *name)
{
    static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
    size_t length = strlen(name);
    return length > 0 && length <= 200 && strspn(name, good) == length && *name != '.' && *name != '-';
}

static bool good_path(const char *path)
{
    return *path == '/' && strlen(path) < 4000;
}

static int choose(const char *text, const char *const words[], size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(text, words[i]) == 0)
            return (int)i;
    return -1;
}

static const char *on_volume(struct plan *plan, char **field)
{
    if (!good_name(field[1]) || !good_path(field[2]))
        return "bad volume";
    int mode = choose(field[3], (const char *const[]){"rw", "ro"}, 2);
    if (mode < 0)
        return "a volume is rw or ro";
    *APPEND(plan->volumes, plan->volume_count) = (struct volume){field[1], field[2], mode == 1};
    return NULL;
}

static const char *on_container(struct plan *plan, char **field)
{
    int kind = choose(field[1], (const char *const[]){"onboot", "onshutdown", "service"}, 3);
    if (kind < 0)
        return "a container is onboot, onshutdown or service";
    if (!good_name(field[2]))
        return "bad container name";
    if (!good_path(field[3]))
        return "bad bundle folder";
    if (plan_find(plan, (enum kind)kind, field[2]))
        return "container named twice";
    *APPEND(plan->containers, plan->container_count) =
        (struct container){.kind = (enum kind)kind, .name = field[2], .directory = field[3], .namespace = ""};
    return NULL;
}

static const char *on_restart(struct container *at, char **field)
{
    int word = choose(field[1], (const char *const[]){"no", "on-failure", "always"}, 3);
    if (word < 0)
        return "restart is no, on-failure or always";
    at->restart = (enum restart)word;
    return NULL;
}

static const char *on_onfail(struct container *at, char **field)
{
    int word = choose(field[1], (const char *const[]){"continue", "halt"}, 2);
    if (word < 0)
        return "onfail is continue or halt";
    at->halt = word == 1;
    return NULL;
}

static const char *on_mount(struct container *at, char **field)
{
    char *end;
    errno = 0;
    unsigned long flags = strtoul(field[4], &end, 10);
    if (errno || *end || field[4][0] < '0' || field[4][0] > '9')
        return "mount flags are a decimal number";
    if (!good_path(field[3]))
        return "bad mount destination";
    *APPEND(at->steps, at->step_count) = (struct step){STEP_MOUNT, field[1], field[2], field[5], flags, field[3]};
    return NULL;
}

static const char *on_mkdir(struct container *at, char **field)
{
    if (!good_path(field[1]))
        return "bad folder";
    *APPEND(at->steps, at->step_count) = (struct step){.what = STEP_MKDIR, .path = field[1]};
    return NULL;
}

static const char *on_cgroup(struct container *at, char **field)
{
    if (!*field[1] || strstr(field[1], ".."))
        return "bad cgroup name";
    *APPEND(at->steps, at->step_count) = (struct step){.what = STEP_CGROUP, .path = field[1]};
    return NULL;
}

static const char *on_interface(struct container *at, char **field)
{
    int root = choose(field[4], (const char *const[]){"0", "1"}, 2);
    if (root < 0 || !*field[1] || strlen(field[1]) > 15 || strlen(field[3]) > 15)
        return "bad interface";
    *APPEND(at->interfaces, at->interface_count) = (struct interface){field[1], field[2], field[3], root == 1};
    return NULL;
}

static const char *on_bindns(struct container *at, char **field)
{
    static const char *const types[] = {"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"};
    if (choose(field[1], types, COUNT(types)) < 0 || !good_path(field[2]))
        return "bad namespace";
    *APPEND(at->kept, at->kept_count) = (struct kept_namespace){field[1], field[2]};
    return NULL;
}

static const char *on_namespace(struct container *at, char **field)
{
    if (!good_name(field[1]))
        return "bad containerd namespace";
    at->namespace = field[1];
    return NULL;
}

/* A decimal number of at most `most`; false: it is none. */
static bool number(const char *text, unsigned long most, unsigned long *value)
{
    char *end;
    errno = 0;
    *value = strtoul(text, &end, 10);
    return !errno && !*end && *text >= '0' && *text <= '9' && *value <= most;
}

static const char *on_timeout(struct container *at, char **field)
{
    unsigned long seconds;
    if (!number(field[1], DAY, &seconds) || !seconds)
        return "a timeout is a number of seconds";
    at->limit = (unsigned)seconds;
    return NULL;
}

static const char *on_health(struct container *at, char **field)
{
    unsigned long ms[3], retries;
    for (int i = 0; i < 3; i++)
        if (!number(field[1 + i], DAY * 1000UL, &ms[i]))
            return "times of a health check are milliseconds";
    if (!ms[0] || !ms[1] || !number(field[4], 1000, &retries) || !retries)
        return "a health check needs an interval, a timeout and retries";
    at->health.interval = (double)ms[0] / 1e3;
    at->health.timeout = (double)ms[1] / 1e3;
    at->health.start = (double)ms[2] / 1e3;
    at->health.retries = (unsigned)retries;
    return NULL;
}

/* The check's kind; without a health line the engines' times. */
static void kind_of(struct container *at, int kind)
{
    at->health.kind = kind == HEALTH_TEST ? HEALTH_TEST : kind == HEALTH_HTTP ? HEALTH_HTTP : HEALTH_TCP;
    if (at->health.retries)
        return;
    at->health.interval = at->health.timeout = 30;
    at->health.retries = 3;
}

static const char *on_test(struct container *at, char **field)
{
    kind_of(at, HEALTH_TEST);
    *APPEND(at->health.test, at->health.test_count) = field[1];
    return NULL;
}

static const char *on_port(struct container *at, const char *text)
{
    unsigned long port;
    if (!number(text, 65535, &port) || !port)
        return "bad port";
    at->health.port = (unsigned)port;
    return NULL;
}

static const char *on_http(struct container *at, char **field)
{
    if (*field[2] != '/' || strpbrk(field[2], " \r\n"))
        return "bad path";
    kind_of(at, HEALTH_HTTP);
    at->health.path = field[2];
    return on_port(at, field[1]);
}

static const char *on_tcp(struct container *at, char **field)
{
    kind_of(at, HEALTH_TCP);
    return on_port(at, field[1]);
}

static const struct word {
    const char *word;
    size_t fields; /* besides the word */
    const char *(*top)(struct plan *, char **);
    const char *(*inside)(struct container *, char **);
} words[] = {
    {"volume", 3, on_volume, NULL},       {"container", 3, on_container, NULL}, {"restart", 1, NULL, on_restart},
    {"onfail", 1, NULL, on_onfail},       {"mount", 5, NULL, on_mount},         {"mkdir", 1, NULL, on_mkdir},
    {"cgroup", 1, NULL, on_cgroup},       {"interface", 4, NULL, on_interface}, {"bindns", 2, NULL, on_bindns},
    {"namespace", 1, NULL, on_namespace}, {"timeout", 1, NULL, on_timeout},     {"health", 4, NULL, on_health},
    {"test", 1, NULL, on_test},           {"http", 2, NULL, on_http},           {"tcp", 1, NULL, on_tcp},
};

static bool is_top(const struct line *line)
{
    return line->count > 0 && (!strcmp(line->fields[0], "volume") || !strcmp(line->fields[0], "container"));
}

static const char *on_line(struct plan *plan, struct line *line)
{
    for (const struct word *word = words; word < words + COUNT(words); word++) {
        if (strcmp(line->fields[0], word->word) != 0)
            continue;
        if (line->count != word->fields + 1)
            return "wrong number of fields";
        if (word->top)
            return word->top(plan, line->fields);
        if (plan->container_count == 0)
            return "stands before the first container";
        return word->inside(&plan->containers[plan->container_count - 1], line->fields);
    }
    return "unknown word";
}

static void free_container(struct container *at)
{
    free(at->steps);
    free(at->interfaces);
    free(at->kept);
    free(at->health.test);
}

/* An entry that cannot be carried out is left out, and the others stay. `skipping`: the rest of its lines follow. */
static void take_line(struct plan *plan, char *text, size_t number, bool *skipping)
{
    struct line line;
    const char *problem = split(text, &line);
    bool top = is_top(&line);
    if (*skipping && !top)
        return;
    *skipping = false;
    if (!problem)
        problem = on_line(plan, &line);
    if (!problem)
        return;
    *skipping = true;
    const char *name = top ? (line.count > 2 && *line.fields[0] == 'c' ? line.fields[2] : "") : "";
    if (!top && plan->container_count) {
        struct container *last = &plan->containers[plan->container_count - 1];
        name = last->name;
        free_container(last);
        plan->container_count--;
    }
    *APPEND(plan->refused, plan->refused_count) =
        format("line %zu: %s%s%.200s", number, problem, *name ? ": " : "", name);
}

int plan_parse(struct plan *plan, char *text, size_t length, char *error, size_t error_size)
{
    *plan = (struct plan){.text = text};
    *error = 0;
    size_t number = 0;
    const char *problem = NULL;
    if (memchr(text, 0, length) || length == 0 || text[length - 1] != '\n')
        problem = length ? "a zero byte, or no newline at the end" : "empty";
    char *rest = text;
    bool skipping = false;
    for (char *at; !problem && (at = next_line(&rest));) {
        number++;
        if (number > 1)
            take_line(plan, at, number, &skipping);
        else if (strcmp(at, "linuxkit-plan\t1") != 0 && strcmp(at, "linuxkit-plan\t2") != 0)
            problem = "not a version 1 or 2 plan";
    }
    if (!problem)
        return 0;
    snprintf(error, error_size, "line %zu: %s", number, problem);
    plan_free(plan);
    return -1;
}

int plan_read(struct plan *plan, const char *path, char *error, size_t error_size)
{
    *plan = (struct plan){0};
    *error = 0;
    size_t length = 0;
    char *text = read_file(path, PLAN_LIMIT, &length);
    if (text)
        return plan_parse(plan, text, length, error, error_size);
    if (errno != ENOENT)
        snprintf(error, error_size, "%s", strerror(errno));
    return -1;
}

void plan_free(struct plan *plan)
{
    for (size_t i = 0; i < plan->container_count; i++)
        free_container(&plan->containers[i]);
    for (size_t i = 0; i < plan->refused_count; i++)
        free(plan->refused[i]);
    free(plan->refused);
    free(plan->containers);
    free(plan->volumes);
    free(plan->text);
    *plan = (struct plan){0};
}

const struct container *plan_find(const struct plan *plan, enum kind kind, const char *name)
{
    for (size_t i = 0; i < plan->container_count; i++)
        if (plan->containers[i].kind == kind && strcmp(plan->containers[i].name, name) == 0)
            return &plan->containers[i];
    return NULL;
}

size_t plan_count(const struct plan *plan, enum kind kind)
{
    size_t count = 0;
    for (size_t i = 0; i < plan->container_count; i++)
        count += plan->containers[i].kind == kind;
    return count;
}
