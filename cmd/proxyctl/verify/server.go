package verify

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Program is a server to be asked.
type Program struct {
	Name string   // for messages
	Path string   // the binary
	Arg0 string   // what it is called by
	Env  []string // added to the environment
}

// running is a server that was started here.
type running struct {
	cmd  *exec.Cmd
	out  bytes.Buffer
	done chan struct{}
}

// startServer starts a program and waits until it accepts connections at all
// addresses.
func startServer(ctx context.Context, p *Program, args []string, addresses []string) (*running, error) {
	r := &running{cmd: exec.Command(p.Path, args...), done: make(chan struct{})}
	r.cmd.Args[0] = p.Arg0
	r.cmd.Env = append(cleanEnvironment(), p.Env...)
	r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.out
	// A signal of the terminal is for this program, which ends what it started.
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = r.cmd.Wait()
		close(r.done)
	}()
	late := time.After(timeToStart)
	for _, a := range addresses {
		for {
			c, err := net.DialTimeout("tcp", a, time.Second)
			if err == nil {
				_ = c.Close()
				break
			}
			select {
			case <-r.done:
				return nil, fmt.Errorf("%s does not start: %s", p.Name, whyNotStarted(r.out.String()))
			case <-ctx.Done():
				r.stop()
				return nil, ctx.Err()
			case <-late:
				r.stop()
				return nil, fmt.Errorf("%s does not listen on %s after %v", p.Name, a, timeToStart)
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	return r, nil
}

const timeToStart = 20 * time.Second

// cleanEnvironment keeps what was meant for this process from those it starts.
func cleanEnvironment() []string {
	var out []string
	for _, e := range os.Environ() {
		switch name, _, _ := strings.Cut(e, "="); name {
		case "NGINX", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES":
		default:
			out = append(out, e)
		}
	}
	return out
}

// stop ends a server, by force if need be.
func (r *running) stop() {
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-r.done:
	case <-time.After(5 * time.Second):
		_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL) // its workers too
		<-r.done
	}
}

func (r *running) alive() bool {
	select {
	case <-r.done:
		return false
	default:
		return true
	}
}

// makePair makes a certificate, for this process and as files.
func makePair(path string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "proxyctl verify"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		os.WriteFile(path+".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(path+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600),
	)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// openToAll lets the account of workers use a socket.
func openToAll(path string) { _ = os.Chmod(path, 0o666) } // #nosec G302 -- the folder around it lives as long as the comparison

func isReadable(path string) bool {
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	return err == nil && info.Mode().IsRegular()
}

// whyNotStarted leaves the warnings out of what a server says before it ends.
func whyNotStarted(said string) string {
	var out []string
	for line := range strings.Lines(said) {
		if !strings.Contains(line, "[warn]") && !strings.Contains(line, "[notice]") {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return strings.Join(out, "\n")
}
