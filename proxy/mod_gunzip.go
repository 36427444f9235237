package proxy

import (
	"compress/gzip"
	"io"
	"iter"
	"sync"

	"proxyctl/proxy/http1"
)

// ngx_http_gunzip_filter_module: decompresses answers for clients that do not
// take them compressed.

func gunzipModule() Module {
	return Module{
		Name: "ngx_http_gunzip_filter_module",
		Commands: []Command{
			Flag(Command{Name: "gunzip", In: inHTTPLevels, Default: "off", Doc: "Decompresses answers for clients that do not take gzip."}, func(c *Conf) *bool { return &c.Gunzip.on }),
			Buffer(Command{Name: "gunzip_buffers", In: inHTTPLevels, Default: "32 4k|16 8k", Doc: "Accepted without effect.", Status: NoEffect, Reason: "the memory of a decompressor is pooled and of one size"},
				func(c *Conf) *Buffers { return &c.Gunzip.buffers }),
		},
		Header: func(c *Conf) HeaderFilter {
			if !c.Gunzip.on {
				return nil
			}
			return filterGunzip
		},
	}
}

// gunzipConf is what the module knows at a level.
type gunzipConf struct {
	on      bool
	buffers Buffers
}

// filterGunzip prepares the head (ngx_http_gunzip_header_filter).
func filterGunzip(x *Exchange) Code {
	v, has := x.Out.Find(http1.ContentEncoding)
	if !has || !equalFold(v, "gzip") {
		return OK
	}
	x.variesByEncoding()
	if x.takesGzip() {
		return OK
	}
	x.Out.Remove(http1.ContentEncoding)
	x.Out.changesBody()
	x.weakenETag()
	x.FilterBody(func(next bodyWriter) bodyWriter {
		d := &decompressor{next: next}
		return d.write
	})
	return OK
}

var gzipReaders sync.Pool

// decompressor is the body filter. Decompressing pulls its input, but the body
// is pushed: it runs as a coroutine that stops where it needs more.
type decompressor struct {
	next   bodyWriter
	x      *Exchange
	in     []byte
	ended  bool
	err    error
	resume func() (struct{}, bool)
}

func (d *decompressor) write(x *Exchange, p []byte, last bool) error {
	if x.headerOnly {
		return d.next(x, p, last)
	}
	if d.resume == nil {
		var stop func()
		d.resume, stop = iter.Pull(d.run)
		x.atEnd(stop)
	}
	d.x, d.in, d.ended = x, p, last
	if len(p) > 0 || last {
		d.resume()
	}
	if d.err != nil {
		return d.err
	}
	if last || x.output.urge != 0 {
		return d.next(x, nil, last)
	}
	return nil
}

// run is the coroutine.
func (d *decompressor) run(yield func(struct{}) bool) {
	src := &pushedReader{d: d, yield: yield}
	gz, _ := gzipReaders.Get().(*gzip.Reader)
	if gz == nil {
		gz = new(gzip.Reader)
	}
	err := gz.Reset(src)
	pooled := pieces.Get().(*[]byte)
	defer pieces.Put(pooled)
	for err == nil {
		var n int
		n, err = gz.Read(*pooled)
		if n > 0 {
			if e := d.next(d.x, (*pooled)[:n], false); e != nil {
				d.err = e
				return
			}
		}
	}
	if err != io.EOF && !src.stopped {
		d.x.Logf(logError, "gunzip failed: %v", err)
		d.err = err
	}
	gzipReaders.Put(gz)
}

// pushedReader reads what is pushed into a decompressor.
type pushedReader struct {
	d       *decompressor
	yield   func(struct{}) bool
	stopped bool
}

func (r *pushedReader) Read(p []byte) (int, error) {
	for len(r.d.in) == 0 {
		if r.d.ended {
			return 0, io.EOF
		}
		if r.stopped || !r.yield(struct{}{}) {
			r.stopped = true
			return 0, io.ErrClosedPipe
		}
	}
	n := copy(p, r.d.in)
	r.d.in = r.d.in[n:]
	return n, nil
}
