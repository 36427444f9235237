package certs

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Export puts a certificate that was obtained into Certbot's folders, as one
// more version of a lineage, under Certbot's own lock. which is its ID or one of
// its names; lineage is "" for the certificate's first name. It gives the folder
// in live.
func Export(o Options, root, which, lineage string) (string, error) {
	o.complete()
	s := store{newFolder(o.DataDir, o.AsRoot).sub("certificates")}
	ids, err := s.ids()
	if err != nil {
		return "", err
	}
	for _, id := range ids {
		r, cert := s.load(id)
		if cert == nil || id != which && !slices.Contains(certificateNames(cert), strings.ToLower(which)) {
			continue
		}
		if lineage == "" {
			lineage = strings.TrimPrefix(r.Names[0], "*.")
		}
		if strings.ContainsAny(lineage, "/\\\x00") || strings.HasPrefix(lineage, ".") {
			return "", fmt.Errorf("invalid name %q", lineage)
		}
		key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
		if err != nil {
			return "", err
		}
		e := export{root: root, name: lineage, directory: r.Directory, key: keyOf(cert)}
		e.files = map[string][]byte{"privkey": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})}
		for i, der := range cert.Certificate {
			block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
			e.files["fullchain"] = append(e.files["fullchain"], block...)
			if i == 0 {
				e.files["cert"] = block
			} else {
				e.files["chain"] = append(e.files["chain"], block...)
			}
		}
		return e.run()
	}
	return "", fmt.Errorf("no certificate for %q is kept here", which)
}

// export is one certificate on its way into Certbot's folders.
type export struct {
	root, name, directory string
	key                   keyKind
	files                 map[string][]byte
}

func (e *export) run() (string, error) {
	for _, d := range []string{"", "archive", "live", "renewal", "archive/" + e.name, "live/" + e.name} {
		mode := os.FileMode(0o700)
		if d == "" || d == "renewal" {
			mode = 0o755
		}
		if err := os.MkdirAll(filepath.Join(e.root, d), mode); err != nil {
			return "", err
		}
	}
	unlock, err := lockCertbot(e.root)
	if err != nil {
		return "", err
	}
	defer unlock()
	archive, live := filepath.Join(e.root, "archive", e.name), filepath.Join(e.root, "live", e.name)
	version, err := nextVersion(archive)
	if err != nil {
		return "", err
	}
	kinds := []string{"privkey", "cert", "chain", "fullchain"}
	for _, kind := range kinds {
		// writeFile puts it in place with mode 0600.
		if err := writeFile(filepath.Join(archive, fmt.Sprintf("%s%d.pem", kind, version)), e.files[kind]); err != nil {
			return "", err
		}
	}
	for _, kind := range kinds {
		target := fmt.Sprintf("../../archive/%s/%s%d.pem", e.name, kind, version)
		if err := replaceLink(filepath.Join(live, kind+".pem"), target); err != nil {
			return "", err
		}
	}
	return live, e.renewalFile(archive, live)
}

// nextVersion is one more than the highest number of a file in the archive.
func nextVersion(archive string) (int, error) {
	entries, err := os.ReadDir(archive)
	if err != nil {
		return 0, err
	}
	most := 0
	numbered := regexp.MustCompile(`^[a-z]+([0-9]{1,9})\.pem$`)
	for _, entry := range entries {
		if found := numbered.FindStringSubmatch(entry.Name()); found != nil {
			n, _ := strconv.Atoi(found[1])
			most = max(most, n)
		}
	}
	return most + 1, nil
}

// replaceLink points a link somewhere else; at no time is it missing.
func replaceLink(name, target string) error {
	if info, err := os.Lstat(name); err == nil && info.Mode()&os.ModeSymlink == 0 {
		return fmt.Errorf("%q is not a link: not one of Certbot's lineages", name)
	}
	temp := name + ".new"
	_ = os.Remove(temp)
	if err := os.Symlink(target, temp); err != nil {
		return err
	}
	return os.Rename(temp, name)
}

// renewalFile makes a renewal file where there is none, for Certbot's nginx
// plugin.
func (e *export) renewalFile(archive, live string) error {
	name := filepath.Join(e.root, "renewal", e.name+".conf")
	if exists(name) {
		return nil
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "version = 2.1.0\narchive_dir = %s\n", archive)
	for _, kind := range []string{"cert", "privkey", "chain", "fullchain"} {
		fmt.Fprintf(&b, "%s = %s\n", kind, filepath.Join(live, kind+".pem"))
	}
	fmt.Fprintf(&b, "\n[renewalparams]\nauthenticator = nginx\ninstaller = nginx\nserver = %s\n", e.directory)
	algorithm, size, _ := strings.Cut(string(e.key), ":")
	fmt.Fprintf(&b, "key_type = %s\n", algorithm)
	if algorithm == "rsa" {
		fmt.Fprintf(&b, "rsa_key_size = %s\n", size)
	} else {
		fmt.Fprintf(&b, "elliptic_curve = secp%sr1\n", size)
	}
	return writeFile(name, b.Bytes())
}

// lockCertbot takes the lock that Certbot holds while it works: a record lock
// on a file that goes with the lock.
func lockCertbot(root string) (unlock func(), err error) {
	path := filepath.Join(root, ".certbot.lock")
	for range 10 {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		lock := syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart}
		if err := syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &lock); err != nil {
			_ = f.Close()
			if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) {
				return nil, fmt.Errorf("certbot is at work in %q: try again when it has ended", root)
			}
			return nil, err
		}
		ours, err := f.Stat()
		if err != nil {
			_ = f.Close()
			return nil, err
		}
		if there, err := os.Stat(path); err == nil && os.SameFile(ours, there) {
			return func() {
				_ = os.Remove(path)
				_ = f.Close()
			}, nil
		}
		_ = f.Close() // it was removed between opening and locking
	}
	return nil, fmt.Errorf("%q cannot be locked", path)
}
