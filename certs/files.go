package certs

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// pairKey tells pairs apart: many sites may share one, which is read once.
type pairKey struct {
	Pair
	lax bool
}

func (s *Site) keys() []pairKey {
	keys := make([]pairKey, len(s.Pairs))
	for i, p := range s.Pairs {
		keys[i] = pairKey{p, s.Lax}
	}
	return keys
}

// entry is what is known of a pair.
type entry struct {
	cert    *tls.Certificate // the last good one, nil if there never was
	stamp   stamp            // of the files when they were last read
	trouble *loadError       // why the files cannot be served as they are
}

// stamp tells one state of a pair's files from another.
type stamp [3]fileStamp

type fileStamp struct {
	path     string // with links resolved, "" if it cannot be
	device   uint64
	inode    uint64
	size     int64
	modified int64 // nanoseconds
}

// load reads a pair. The stamp is taken first: what changes while the files
// are read shows at the next look.
func load(k pairKey) *entry {
	e := &entry{stamp: stampOf(k.Pair)}
	if k.Cert == Obtained {
		e.trouble = &loadError{path: k.Cert, text: `"` + Obtained + `" has no value: there is no "acme_certificate" in this server`, missing: true}
		return e
	}
	cert, err := loadPair(k.Pair, k.lax)
	if err != nil && !errors.As(err, &e.trouble) {
		e.trouble = &loadError{path: k.Cert, text: err.Error()}
	}
	e.cert = cert
	return e
}

// after gives the entry that follows old: a renewal that is not whole yet
// leaves the good pair in service. news is what changed, "" if nothing.
func (e *entry) after(old *entry, k pairKey) (news news) {
	if old == nil {
		return news
	}
	switch {
	case e.trouble == nil && old.trouble != nil:
		news.level, news.text = "notice", fmt.Sprintf("certificate %s is read again%s", quoteCert(k.Cert), until(e.cert))
	case e.trouble == nil && old.stamp != e.stamp:
		news.level, news.text = "notice", fmt.Sprintf("certificate %s was renewed%s", quoteCert(k.Cert), until(e.cert))
	case e.trouble != nil && (old.trouble == nil || old.trouble.text != e.trouble.text):
		news.level, news.text = "warn", e.trouble.text
		if old.cert != nil {
			news.text += keptSuffix
		}
	}
	if e.trouble != nil {
		e.cert = old.cert
	}
	return news
}

// keptSuffix follows nginx's words where its reload would have failed.
const keptSuffix = "; serving the certificate that was read before"

// news is a line for the log.
type news struct{ level, text string }

func until(cert *tls.Certificate) string {
	if cert.Leaf == nil {
		return ""
	}
	return ", valid until " + cert.Leaf.NotAfter.UTC().Format(time.DateTime) + " UTC"
}

func stampOf(p Pair) stamp {
	return stamp{stampFile(p.Cert), stampFile(p.Key), stampFile(p.PasswordFile)}
}

func stampFile(name string) fileStamp {
	if name == "" || strings.HasPrefix(name, "data:") {
		return fileStamp{}
	}
	info, err := os.Stat(name)
	if err != nil {
		return fileStamp{}
	}
	path, err := filepath.EvalSymlinks(name)
	if err != nil {
		return fileStamp{}
	}
	f := fileStamp{path: path, size: info.Size(), modified: info.ModTime().UnixNano()}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		f.device, f.inode = s.Dev, s.Ino
	}
	return f
}
