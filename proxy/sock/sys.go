package sock

import (
	"errors"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// read calls read(2), again when a signal came in between.
func read(fd int, p []byte) (int, syscall.Errno) { return transferBytes(unix.SYS_READ, fd, p) }

// write calls write(2), again when a signal came in between.
func write(fd int, p []byte) (int, syscall.Errno) { return transferBytes(unix.SYS_WRITE, fd, p) }

// connect calls connect(2) for an address as sockaddr encodes it.
func connect(fd int, to []byte) syscall.Errno {
	_, e := transferBytes(unix.SYS_CONNECT, fd, to)
	return e
}

// bind calls bind(2) likewise.
func bind(fd int, from []byte) syscall.Errno {
	_, e := transferBytes(unix.SYS_BIND, fd, from)
	return e
}

// transferBytes makes a system call for a descriptor and bytes, without telling
// the scheduler. The descriptors never block, so there is nothing that the
// scheduler could do meanwhile, and telling it costs 8 % of a request and its answer over loopback
// (BenchmarkPingPong, against unix.Read and unix.Write). This is the one use of
// unsafe: the address of a slice, for the kernel, with that slice's length.
func transferBytes(call uintptr, fd int, p []byte) (int, syscall.Errno) {
	for {
		n, _, e := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		switch e {
		case 0:
			return int(n), 0
		case unix.EINTR:
		default:
			return 0, e
		}
	}
}

// peek reads what a socket holds and leaves it there.
func peek(fd int, p []byte) (int, syscall.Errno) {
	for {
		n, _, err := unix.Recvfrom(fd, p, unix.MSG_PEEK)
		var e syscall.Errno
		if !errors.As(err, &e) {
			return n, 0
		}
		if e != unix.EINTR {
			return 0, e
		}
	}
}

// events asks poll(2), without waiting, which of the events hold for a socket.
// POLLHUP and POLLERR are always among them.
func events(fd int, which int16) int16 {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: which}}
	for {
		n, err := unix.Poll(fds[:], 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return unix.POLLERR
		case n == 0:
			return 0
		default:
			return fds[0].Revents
		}
	}
}
