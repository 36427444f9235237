package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"proxyctl/proxy"
)

// signalInfo is one thing that can be told to a running server.
type signalInfo struct{ name, short string }

func signals() []signalInfo {
	return []signalInfo{
		{"reload", "Load the configuration anew; returns when it serves, or says why it cannot"},
		{"stop", "End the server at once"},
		{"quit", "End the server when its requests have ended"},
		{"reopen", "Reopen the log files"},
	}
}

func signalCommand(s signalInfo) *cobra.Command {
	pid := defaultPID
	cmd := &cobra.Command{
		Use:   s.name,
		Short: s.short,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := sendSignal(pid, s.name)
			if err == nil {
				return nil
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "proxyctl: %v\n", err)
			if errors.Is(err, fs.ErrNotExist) {
				fmt.Fprintln(cmd.ErrOrStderr(), "Does the server run? Its pid file is what the pid directive says; name it by --pid.")
			}
			return exitCode(1)
		},
	}
	cmd.Flags().StringVar(&pid, "pid", pid, "pid file of the server")
	return cmd
}

// signal tells the running server what nginx -s says.
func (p *process) signal(name string) int {
	p.options.NoLogs = true
	table, diags := p.load(p.parse())
	if p.sayNginx(diags, false) {
		return 1
	}
	log := proxy.NewRuntime(p.options).Logf
	log(proxy.LogNotice, "signal process started")
	err := sendSignal(table.Main.PID, name)
	var refused *reloadError
	var kill *killError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &refused): // the server has logged it
		fmt.Fprintf(p.stderr, "%s: [error] %v\n", p.product.Name, err)
	case errors.As(err, &kill):
		log(proxy.LogAlert, "%v", err)
	default:
		log(proxy.LogError, "%v", err)
	}
	return 1
}

// killError is a process that cannot be told anything.
type killError struct {
	pid int
	sig syscall.Signal
	err error
}

func (e *killError) Error() string {
	return fmt.Sprintf("kill(%d, %d) failed (%d: %s)", e.pid, int(e.sig), proxy.Errno(e.err), proxy.SystemText(e.err))
}

func (e *killError) Unwrap() error { return e.err }

// reloadLimit is how long a reload may take before its sender gives up.
const reloadLimit = time.Minute

// sendSignal tells the server whose pid file it is. A reload returns when the
// new configuration serves, or with the reason why it does not.
func sendSignal(pidFile, name string) error {
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return proxy.SystemError("open()", pidFile, err)
	}
	number := strings.TrimRight(string(text), "\r\n")
	pid, err := strconv.ParseUint(number, 10, 31)
	if err != nil || pid == 0 {
		return fmt.Errorf("invalid PID number %q in %q", number, pidFile)
	}
	sig := map[string]syscall.Signal{"stop": syscall.SIGTERM, "quit": syscall.SIGQUIT, "reopen": syscall.SIGUSR1, "reload": syscall.SIGHUP}[name]
	var answer *reloadAnswer
	if name == "reload" {
		answer = awaitReload(int(pid))
		defer answer.close()
	}
	if err := syscall.Kill(int(pid), sig); err != nil {
		return &killError{int(pid), sig, err}
	}
	return answer.wait(reloadLimit)
}
