package takeover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// State is what was there before a takeover.
type State struct {
	Version string    `json:"version"` // of nginx
	Binary  string    `json:"binary"`
	Kept    string    `json:"kept"` // where the original is
	Conf    string    `json:"conf"`
	Prefix  string    `json:"prefix"`
	PIDFile string    `json:"pidFile"`
	PID     int       `json:"pid"`
	Args    string    `json:"args"`
	Unit    string    `json:"unit,omitempty"`
	Divert  bool      `json:"divert,omitempty"` // the package manager was told
	Began   time.Time `json:"began"`
}

// Load reads what a takeover wrote down; nil for none.
func Load(path string) (*State, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s := new(State)
	if err := json.Unmarshal(text, s); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// remember writes the facts down. What an interrupted takeover wrote stays.
func (p *Plan) remember(context.Context) error {
	if before, err := Load(p.State); err != nil {
		return err
	} else if before != nil && before.Binary == p.Binary {
		return nil
	}
	s := p.Facts
	s.Binary, s.Kept, s.PIDFile, s.Divert, s.Began = p.Binary, p.kept(), p.PIDFile, p.Divert != nil, time.Now()
	text, err := json.MarshalIndent(&s, "", "  ")
	if err != nil {
		return err
	}
	return replace(p.State, 0o600, func(w io.Writer) error {
		_, err := w.Write(append(text, '\n'))
		return err
	})
}

// keep gives the original a second name.
func (p *Plan) keep(context.Context) error {
	ours, err := isOurs(p.Binary)
	if err != nil {
		return err
	}
	if ours {
		if !exists(p.kept()) {
			return fmt.Errorf("%s is this program already, and there is no %s", p.Binary, p.kept())
		}
		return nil
	}
	if exists(p.kept()) {
		if !same(p.Binary, p.kept()) {
			return fmt.Errorf("%s is there already: somebody has put another program in nginx's place before", p.kept())
		}
		return nil
	}
	return os.Link(p.Binary, p.kept())
}

// install puts a copy of a program at Binary, at once and for good.
func (p *Plan) install(from string) error {
	want, err := isOurs(from)
	if err != nil {
		return err
	}
	if same(from, p.Binary) {
		return nil
	}
	if !want { // the original itself, not a copy
		next := p.Binary + ".next"
		_ = os.Remove(next)
		if err := os.Link(from, next); err != nil {
			return err
		}
		return errors.Join(os.Rename(next, p.Binary), syncFolder(p.Binary))
	}
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	return replace(p.Binary, 0o755, func(w io.Writer) error {
		_, err := io.Copy(w, source)
		return err
	})
}

// same says whether two names lead to one file.
func same(a, b string) bool {
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

// replace writes a file under another name and gives it its own when it is
// complete and on the disk.
func replace(path string, mode fs.FileMode, write func(io.Writer) error) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { // #nosec G301 -- as packages make it
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	err = errors.Join(write(f), f.Chmod(mode), f.Sync())
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return err
	}
	return syncFolder(path)
}

func syncFolder(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// vacate removes this program from nginx's path.
func (p *Plan) vacate() error {
	if ours, err := isOurs(p.Binary); err != nil || !ours {
		return err
	}
	return errors.Join(os.Remove(p.Binary), syncFolder(p.Binary))
}

// forget removes what was kept, once the original is in its place.
func (p *Plan) forget() error {
	if !exists(p.Binary) {
		return remove(p.State)
	}
	ours, err := isOurs(p.Binary)
	if err != nil {
		return err
	}
	if !ours && same(p.Binary, p.kept()) {
		err = remove(p.kept())
	}
	return errors.Join(err, remove(p.State))
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// lock keeps others from doing the same.
func (p *Plan) lock() (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(p.State), 0o755); err != nil { // #nosec G301 -- it holds nothing secret
		return nil, err
	}
	f, err := os.OpenFile(p.State+".lock", os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, errors.New("another takeover or rollback is at work")
	}
	return func() {
		_ = os.Remove(f.Name())
		_ = f.Close()
	}, nil
}
