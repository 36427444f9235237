package certs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
)

// DNS says how records are made for DNS-01 challenges; the zero value is not at
// all.
type DNS struct {
	Hook, Cleanup string // commands in the manner of Certbot's manual hooks
	Credentials   string // file for dynamic updates (RFC 2136), as Certbot has it
}

// solver makes the one that makes records.
func (m DNS) solver(o *order, i *issuer) (acmez.Solver, error) {
	switch {
	case m.Hook != "":
		return &hookSolver{dns: m, names: o.names, asRoot: i.accounts.asRoot, outputs: map[string]string{}}, nil
	case m.Credentials != "":
		text, err := i.readFile(m.Credentials)
		if err != nil {
			return nil, fmt.Errorf("credentials for dynamic updates: %w", err)
		}
		return newUpdateSolver(text)
	}
	return nil, errors.New("no way to change the DNS is configured")
}

// hookSolver has commands make and remove the records, in the environment that
// Certbot gives its manual hooks. They have the rights of whoever started the
// process.
type hookSolver struct {
	dns    DNS
	names  []string
	asRoot func(func() error) error

	mu      sync.Mutex
	outputs map[string]string // of the hook, by validation: the cleanup gets it
}

const (
	hookTimeout = 4 * time.Minute
	maxOutput   = 64 << 10
)

// Present runs the hook. It returns when the record can be looked up: waiting
// for that is the hook's business, as with Certbot.
func (s *hookSolver) Present(ctx context.Context, c acme.Challenge) error {
	out, err := s.run(ctx, s.dns.Hook, c, nil)
	if err != nil {
		return fmt.Errorf("DNS hook: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outputs[c.DNS01KeyAuthorization()] = out
	return nil
}

// CleanUp runs the cleanup hook, if there is one.
func (s *hookSolver) CleanUp(ctx context.Context, c acme.Challenge) error {
	if s.dns.Cleanup == "" {
		return nil
	}
	s.mu.Lock()
	out := s.outputs[c.DNS01KeyAuthorization()]
	delete(s.outputs, c.DNS01KeyAuthorization())
	s.mu.Unlock()
	if _, err := s.run(context.WithoutCancel(ctx), s.dns.Cleanup, c, []string{"CERTBOT_AUTH_OUTPUT=" + out}); err != nil {
		return fmt.Errorf("DNS cleanup hook: %w", err)
	}
	return nil
}

func (s *hookSolver) run(ctx context.Context, command string, c acme.Challenge, env []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, hookTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Env = append(os.Environ(),
		"CERTBOT_DOMAIN="+c.Identifier.Value, "CERTBOT_IDENTIFIER="+c.Identifier.Value, "CERTBOT_VALIDATION="+c.DNS01KeyAuthorization(),
		"CERTBOT_ALL_DOMAINS="+strings.Join(s.names, ","), "CERTBOT_REMAINING_CHALLENGES=0")
	cmd.Env = append(cmd.Env, env...)
	var stdout, stderr capped
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second // for what the hook leaves behind
	err := s.asRoot(func() error {
		if os.Geteuid() == 0 {
			// The thread has root's rights for a moment only: the command
			// gets all of them.
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{}}
		}
		return cmd.Start()
	})
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		if line, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n"); line != "" {
			err = fmt.Errorf("%w: %s", err, line)
		}
		return "", err
	}
	return strings.TrimSpace(stdout.String()), nil
}

// capped keeps the beginning of what is written.
type capped struct{ text bytes.Buffer }

func (c *capped) Write(p []byte) (int, error) {
	if room := maxOutput - c.text.Len(); room > 0 {
		c.text.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func (c *capped) String() string { return c.text.String() }
