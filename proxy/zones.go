package proxy

import "proxyctl/parser"

// zone is memory that nginx shares between its processes, by name. Here the
// name and the size are what counts: what is shared, and how much is kept.
type zone struct {
	size int64
	use  string // the module, so that none takes another's zone
}

// sharedZone declares a zone, or one more use of it. Size 0 stands for that of
// another place (ngx_shared_memory_add).
func (l *Level) sharedZone(arg parser.Arg, name string, size int64, use string) error {
	t := l.c.table
	z := t.zones[name]
	if z == nil {
		z = &zone{size, use}
		t.zones[name] = z
		l.AtFinish(func() {
			if z.size == 0 {
				l.c.failLater(parser.Error, arg.Range, parser.Range{}, "", "give the size in one place: "+name+" 64k", "zero size shared memory zone %q", name)
			}
		})
		return nil
	}
	if z.use != use {
		return sayAt(arg, "", "choose another name", "the shared memory zone %q is already declared for a different use", name)
	}
	if z.size == 0 {
		z.size = size
	}
	if size != 0 && size != z.size {
		return sayAt(arg, "", "", "the size %d of shared memory zone %q conflicts with already declared size %d", size, name, z.size)
	}
	return nil
}
