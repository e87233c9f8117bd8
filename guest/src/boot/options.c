/* The command line's words about the root. */
#include "bootstage.h"
#include "util.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define VERITY "linuxkit.verity"

/* A decimal number up to `most` at `*at`, which is put behind it. False: none, or too large. */
static bool number(const char **at, uint64_t most, uint64_t *value)
{
    if (!isdigit((unsigned char)**at))
        return false;
    for (*value = 0; isdigit((unsigned char)**at); (*at)++) {
        *value = *value * 10 + (uint64_t)(**at - '0');
        if (*value > most)
            return false;
    }
    return true;
}

/* Hexadecimal digits up to the next colon or the end, at most `room` - 1 of them, in pairs. Returns how many. */
static size_t hexadecimal(const char **at, char *text, size_t room)
{
    size_t length = strcspn(*at, ":");
    if (length >= room || length % 2)
        return 0;
    for (size_t i = 0; i < length; i++) {
        char c = (char)tolower((unsigned char)(*at)[i]);
        if (!isxdigit((unsigned char)c))
            return 0;
        text[i] = c;
    }
    text[length] = 0;
    *at += length;
    return length;
}

int verity_parse(struct verity *verity, const char *text)
{
    const uint64_t most = (uint64_t)1 << 50;
    *verity = (struct verity){0};
    if (!starts_with(text, "1:"))
        return -1;
    text += 2;
    if (!number(&text, most, &verity->blocks) || *text++ != ':' || !number(&text, most, &verity->hash_start) ||
        *text++ != ':')
        return -1;
    if (*text == '-') {
        strcpy(verity->salt, "-");
        text++;
    } else if (!hexadecimal(&text, verity->salt, sizeof(verity->salt))) {
        return -1;
    }
    if (*text++ != ':' || hexadecimal(&text, verity->root_hash, sizeof(verity->root_hash)) != 64 || *text)
        return -1;
    return verity->blocks && verity->hash_start >= verity->blocks ? 0 : -1;
}

static void keep(char **place, const char *value)
{
    free(*place);
    *place = must_dup(value);
}

static bool seconds(const char *text, double *value)
{
    uint64_t n;
    if (!number(&text, 1000000, &n) || *text)
        return false;
    *value = (double)n;
    return true;
}

int root_options_read(struct root_options *options, const char *cmdline, char reason[static REASON_MAX])
{
    *options = (struct root_options){.wait = ROOT_SECONDS};
    scoped_free char *copy = must_dup(cmdline);
    bool ours = true; /* behind a -- stand words for init */
    char *save;
    for (char *word = strtok_r(copy, " \t\n", &save); word; word = strtok_r(NULL, " \t\n", &save)) {
        char *value = strchr(word, '=');
        bool about_verity = starts_with(word, VERITY) && (!word[strlen(VERITY)] || value == word + strlen(VERITY));
        if (about_verity) { /* wherever it stands: to miss it would be to trust the disk */
            if (options->verified || !value || verity_parse(&options->verity, value + 1) < 0) {
                snprintf(reason, REASON_MAX, options->verified ? VERITY "= is given twice"
                         : VERITY "= must be 1:BLOCKS:HASHSTART:SALT:ROOTHASH, and is not");
                return -1;
            }
            options->verified = true;
            continue;
        }
        ours = ours && strcmp(word, "--");
        if (!ours)
            continue;
        bool bad = false;
        if (starts_with(word, "root="))
            keep(&options->root, value + 1);
        else if (starts_with(word, "rootfstype="))
            keep(&options->types, value + 1);
        else if (starts_with(word, "rootflags="))
            keep(&options->flags, value + 1);
        else if (starts_with(word, "init="))
            keep(&options->init, value + 1);
        else if (!strcmp(word, "ro") || !strcmp(word, "rw"))
            options->writable = word[1] == 'w';
        else if (!strcmp(word, "rootwait"))
            options->wait = -1;
        else if (starts_with(word, "rootwait="))
            bad = !seconds(value + 1, &options->wait);
        else if (starts_with(word, "rootdelay="))
            bad = !seconds(value + 1, &options->delay);
        if (bad) {
            snprintf(reason, REASON_MAX, "%.100s: not a number of seconds", word);
            return -1;
        }
    }
    if (!options->root || !*options->root) {
        snprintf(reason, REASON_MAX, "the command line has no root=");
        return -1;
    }
    if (!spec_known(options->root)) {
        snprintf(reason, REASON_MAX, "root=%.200s: only /dev/NAME, PARTUUID=, PARTLABEL=, LABEL= and UUID= are known here",
                 options->root);
        return -1;
    }
    if (options->init && *options->init != '/') {
        snprintf(reason, REASON_MAX, "init=%.200s: not an absolute path", options->init);
        return -1;
    }
    return 0;
}

void root_options_free(struct root_options *options)
{
    free(options->root);
    free(options->types);
    free(options->flags);
    free(options->init);
    *options = (struct root_options){0};
}
