/*
 * A PAM module that does what its user's name says, or its argument do=NAME: the password is "right", and some names
 * bring calamities. The argument to=NAME changes the user's name. Built by the tests; of no other use.
 */
#define _GNU_SOURCE
#include <security/pam_ext.h>
#include <security/pam_modules.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int converse(pam_handle_t *pamh, int count, int style, const char *text, char *answer, size_t size)
{
    const struct pam_conv *conv = NULL;
    struct pam_message *messages = calloc(count > 0 ? count : 1, sizeof *messages);
    const struct pam_message **pointers = calloc(count > 0 ? count : 1, sizeof *pointers);
    struct pam_response *responses = NULL;
    int result = pam_get_item(pamh, PAM_CONV, (const void **)&conv);

    for (int i = 0; i < count; i++) {
        messages[i].msg_style = style;
        messages[i].msg = text;
        pointers[i] = &messages[i];
    }
    if (result == PAM_SUCCESS)
        result = conv->conv(count, pointers, &responses, conv->appdata_ptr);
    if (result == PAM_SUCCESS && answer != NULL)
        snprintf(answer, size, "%s", responses && responses[0].resp ? responses[0].resp : "");
    if (result == PAM_SUCCESS && responses != NULL) {
        for (int i = 0; i < count; i++)
            free(responses[i].resp);
        free(responses);
    }
    free(messages);
    free(pointers);
    return result;
}

int pam_sm_authenticate(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
    const char *asked = NULL;
    char user[256], answer[600] = "";
    int result = pam_get_user(pamh, &asked, NULL);

    if (result != PAM_SUCCESS)
        return result;
    snprintf(user, sizeof user, "%s", argc > 0 && strncmp(argv[0], "do=", 3) == 0 ? argv[0] + 3 : asked);
    if (strcmp(user, "yes") == 0 || strcmp(user, "asks-later") == 0)
        return PAM_SUCCESS;
    if (strncmp(user, "code", 4) == 0)
        return atoi(user + 4);
    if (strcmp(user, "nothing") == 0)
        return converse(pamh, 0, PAM_PROMPT_ECHO_OFF, "", NULL, 0);
    if (strcmp(user, "negative") == 0)
        return converse(pamh, -1, PAM_PROMPT_ECHO_OFF, "", NULL, 0);
    if (strcmp(user, "many") == 0)
        return converse(pamh, 33, PAM_PROMPT_ECHO_OFF, "", NULL, 0);
    if (strcmp(user, "binary") == 0)
        return converse(pamh, 1, PAM_BINARY_PROMPT, "\0\0\0\6\1x", NULL, 0);
    if (strcmp(user, "radio") == 0)
        return converse(pamh, 1, PAM_RADIO_TYPE, "Sure?", NULL, 0);
    if (strcmp(user, "odd") == 0)
        return converse(pamh, 1, 77, "?", NULL, 0);
    if (strcmp(user, "talker") == 0) {
        converse(pamh, 1, PAM_ERROR_MSG, "the server is on fire", NULL, 0);
        converse(pamh, 1, PAM_TEXT_INFO, NULL, NULL, 0);
    }

    if (strcmp(user, "leave") == 0 && (setpgid(0, getpgid(getppid())) != 0 || setsid() == -1))
        return PAM_SYSTEM_ERR;
    if (strcmp(user, "hang-as-other") == 0 && setresuid(65534, 65534, 65534) != 0)
        return PAM_SYSTEM_ERR;
    if (strncmp(user, "hang", 4) == 0) {
        sigset_t all;
        sigfillset(&all);
        sigprocmask(SIG_BLOCK, &all, NULL);
        for (;;)
            pause();
    }
    if (strcmp(user, "spin") == 0)
        for (;;)
            ;
    if (strcmp(user, "last-words") == 0)
        fprintf(stderr, "and no end of line");
    if (strcmp(user, "abort") == 0 || strcmp(user, "last-words") == 0)
        abort();
    if (strcmp(user, "exit") == 0)
        _exit(0);
    if (strcmp(user, "fork") == 0 && fork() == 0)
        for (;;)
            pause();
    if (strcmp(user, "close") == 0)
        for (int fd = 0; fd < 1024; fd++)
            close(fd);
    if (strcmp(user, "uid") == 0 && setresuid(65534, 65534, 65534) != 0)
        return PAM_SYSTEM_ERR;
    if (strcmp(user, "gid") == 0 && setresgid(65534, 65534, 65534) != 0)
        return PAM_SYSTEM_ERR;
    if (strcmp(user, "flood") == 0)
        for (;;)
            fprintf(stderr, "too much\n");
    if (strcmp(user, "wordy") == 0) {
        /* One MiB each, to the byte. */
        for (int line = 0; line < 1 << 16; line++) {
            fprintf(stderr, "line %9d.\n", line);
            printf("line %9d.\n", line);
        }
        fflush(stdout);
    }
    if (strcmp(user, "leak-memory") == 0)
        memset(malloc(10 << 20), 1, 10 << 20);
    if (strcmp(user, "leak-fds") == 0)
        for (int i = 0; i < 10; i++)
            (void)!dup(2);
    if (strcmp(user, "huge") == 0) {
        /* Touched, so that nobody can promise it without having it. */
        char *memory = malloc(1u << 30);
        if (memory == NULL)
            return PAM_BUF_ERR;
        memset(memory, 1, 1u << 30);
    }
    if (strcmp(user, "greedy") == 0)
        for (;;) {
            char *memory = malloc(10 << 20);
            if (memory == NULL)
                return PAM_BUF_ERR;
            memset(memory, 1, 10 << 20);
        }
    if (argc > 0 && strncmp(argv[0], "to=", 3) == 0)
        pam_set_item(pamh, PAM_USER, argv[0] + 3);
    if (strcmp(user, "rename") == 0)
        pam_set_item(pamh, PAM_USER, "somebody");
    if (strcmp(user, "rename-to-root") == 0)
        pam_set_item(pamh, PAM_USER, "root");
    if (strcmp(user, "rename-to-noise") == 0)
        pam_set_item(pamh, PAM_USER, "\xff\xfe");
    if (strcmp(user, "rename-to-nobody") == 0)
        pam_set_item(pamh, PAM_USER, NULL);

    result = converse(pamh, 1, PAM_PROMPT_ECHO_OFF, strcmp(user, "null") == 0 ? NULL : "Password: ", answer,
                      sizeof answer);
    if (result == PAM_SUCCESS && strncmp(user, "twice", 5) == 0) {
        result = converse(pamh, 1, PAM_PROMPT_ECHO_OFF, "Code: ", answer, sizeof answer);
        /* twice7: whatever came of it, this is what it makes of it. */
        if (user[5] != '\0')
            return atoi(user + 5);
    }
    if (result == PAM_SUCCESS && strcmp(user, "name") == 0) {
        result = converse(pamh, 1, PAM_PROMPT_ECHO_ON, "login: ", answer, sizeof answer);
        return result == PAM_SUCCESS && strcmp(answer, "name") == 0 ? PAM_SUCCESS : PAM_AUTH_ERR;
    }
    if (result != PAM_SUCCESS)
        return result;
    return strcmp(answer, "right") == 0 ? PAM_SUCCESS : PAM_AUTH_ERR;
}

int pam_sm_setcred(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
    return PAM_SUCCESS;
}

int pam_sm_acct_mgmt(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
    const char *user = NULL;
    int result = pam_get_user(pamh, &user, NULL);

    if (result == PAM_SUCCESS && strncmp(user, "account", 7) == 0)
        return atoi(user + 7);
    if (result == PAM_SUCCESS && strcmp(user, "asks-later") == 0)
        return converse(pamh, 1, PAM_PROMPT_ECHO_OFF, "Password: ", NULL, 0);
    return result;
}
