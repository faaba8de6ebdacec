/*
 * Preloaded into User Mode Linux, so that it runs on processors whose extended register state is larger than the
 * buffer its kernel was built with. AMX tiles alone are 8 KiB; the host then answers the lab's transfers of
 * NT_X86_XSTATE with an error, and the lab's kernel gives up.
 *
 * Here such a transfer goes through a buffer that holds any state. To write one, the host's present state is read
 * first and the part that the caller knows is laid over it. Every other request passes unchanged.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static long host(long request, pid_t pid, void *address, void *data)
{
	return syscall(SYS_ptrace, request, pid, address, data);
}

static long xstate(long request, pid_t pid, void *address, struct iovec *theirs)
{
	static unsigned char bytes[1 << 16] __attribute__((aligned(64)));
	struct iovec whole = { .iov_base = bytes, .iov_len = sizeof bytes };

	if (host(PTRACE_GETREGSET, pid, address, &whole) < 0)
		return -1;
	if (theirs->iov_len > whole.iov_len)
		theirs->iov_len = whole.iov_len;
	if (request == PTRACE_GETREGSET) {
		memcpy(theirs->iov_base, bytes, theirs->iov_len);
		return 0;
	}
	memcpy(bytes, theirs->iov_base, theirs->iov_len);
	return host(PTRACE_SETREGSET, pid, address, &whole);
}

/* The C library's peek requests return the word; the system call writes it through its last argument. */
static long peek(long request, pid_t pid, void *address)
{
	long word = 0;

	if (host(request, pid, address, &word) < 0)
		return -1;
	errno = 0;
	return word;
}

long ptrace(enum __ptrace_request request, ...)
{
	va_list list;
	pid_t pid;
	void *address, *data;

	va_start(list, request);
	pid = va_arg(list, pid_t);
	address = va_arg(list, void *);
	data = va_arg(list, void *);
	va_end(list);

	switch ((int)request) {
	case PTRACE_GETREGSET:
	case PTRACE_SETREGSET:
		if ((long)address == NT_X86_XSTATE)
			return xstate(request, pid, address, data);
		break;
	case PTRACE_PEEKTEXT:
	case PTRACE_PEEKDATA:
	case PTRACE_PEEKUSER:
		return peek(request, pid, address);
	}
	return host(request, pid, address, data);
}
