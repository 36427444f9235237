package proxy

import (
	"errors"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Whose rights requests are served with. nginx has a master that stays root
// and workers that are the account of the user directive. Here one process is
// both: after DropRights every thread has the account's effective ids and keeps
// root as the saved one. What only the master may do (bind low ports, open
// logs and keys) runs in asRoot on one thread of its own that takes root back
// for that time; Linux keeps ids by thread. Request handlers never run there.

// DropRights makes the process serve with the rights of the user directive. To
// be called once everything that only root may open is open. It does nothing
// when root did not start the process.
func (r *Runtime) DropRights() error {
	t := r.table.Load()
	if t == nil || t.Main.UID < 0 || os.Geteuid() != 0 {
		return nil
	}
	m := &t.Main
	if err := syscall.Setgroups(m.Groups); err != nil {
		return errorWithCode("setgroups() failed", err)
	}
	if err := syscall.Setresgid(m.GID, m.GID, 0); err != nil {
		return errorWithCode("setgid() failed", err)
	}
	if err := syscall.Setresuid(m.UID, m.UID, 0); err != nil {
		return errorWithCode("setuid() failed", err)
	}
	r.rights = &rights{m.UID, m.GID}
	return nil
}

// rights are the account that requests are served as.
type rights struct{ uid, gid int }

// sameRights refuses a reload that would change the account.
//
// Unlike nginx, whose workers are new processes: to change it, all threads
// would have to be root for a moment, those that serve requests too.
func (r *Runtime) sameRights(m *mainConf) error {
	if now := r.rights; now != nil && *now != (rights{m.UID, m.GID}) {
		return errors.New("the \"user\" directive cannot change while the server runs: restart it")
	}
	return nil
}

// AsRoot runs f with the rights that the process was started with.
func (r *Runtime) AsRoot(f func() error) error {
	t := r.table.Load()
	if t == nil {
		return f()
	}
	return r.asRoot(&t.Main, f)
}

func (r *Runtime) asRoot(m *mainConf, f func() error) error {
	if m.UID <= 0 || os.Geteuid() == 0 {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and its rights
		// with it.
		runtime.LockOSThread()
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 0, ^uintptr(0)); e != 0 {
			done <- errors.Join(errorWithCode("setuid() failed", e), f())
			return
		}
		// The group is that of the files it makes.
		_, _, _ = unix.RawSyscall(unix.SYS_SETRESGID, ^uintptr(0), 0, ^uintptr(0))
		done <- f()
	}()
	return <-done
}
