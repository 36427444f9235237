package proxy

import (
	"time"

	"proxyctl/proxy/http1"
)

// ngx_http_ssi_filter_module: server side includes. The rows, the variables and
// the head are here, the commands are found in mod_ssi_parse.go and carried out
// in mod_ssi_command.go.

func ssiModule() Module {
	const in = inHTTPLevels
	return Module{
		Name: "ngx_http_ssi_filter_module",
		Commands: append([]Command{
			Flag(Command{Name: "ssi", In: in | InLocationIf, Default: "off", Differs: "a page may define blocks of one megabyte in all", Doc: "Processes server side includes."}, func(c *Conf) *bool { return &c.SSI.on }),
			Flag(Command{Name: "ssi_silent_errors", In: in, Default: "off", Doc: "Shows nothing where a command failed."}, func(c *Conf) *bool { return &c.SSI.silent }),
			Flag(Command{Name: "ssi_last_modified", In: in, Default: "off", Doc: "Keeps Last-Modified."}, func(c *Conf) *bool { return &c.SSI.lastModified }),
			Size(Command{Name: "ssi_value_length", In: in, Default: "256", Doc: "Limits the values of parameters."}, func(c *Conf) *int64 { return &c.SSI.valueLength }),
			MIMETypes(Command{Name: "ssi_types", In: in, Doc: "Sets the types that are processed."}, func(c *Conf) *mimeTypes { return &c.SSI.types }, "text/html"),
			Size(Command{Name: "ssi_min_file_chunk", In: in, Default: "1k", Doc: "Accepted without effect.", Status: NoEffect, Reason: "processed files are sent from memory"},
				func(c *Conf) *int64 { return &c.SSI.unused }),
		}, Ignored(in, "flag", "buffers are passed on as they come", "ssi_ignore_recycled_buffers")...),
		Variables: []Variable{
			readOnly("date_local", func(dst []byte, x *Exchange) ([]byte, bool) { return x.appendDate(dst, time.Now()) }),
			readOnly("date_gmt", func(dst []byte, x *Exchange) ([]byte, bool) { return x.appendDate(dst, time.Now().UTC()) }),
		},
		Init: func(c *Conf) {
			c.SSI.valueLength = 255 // the documentation says 256
			c.SSI.types.names = []string{"text/html"}
		},
		Header: func(c *Conf) HeaderFilter {
			if !c.SSI.on {
				return nil
			}
			return c.SSI.filter
		},
	}
}

// ssiConf is what the module knows at a level.
type ssiConf struct {
	on, silent, lastModified bool
	valueLength, unused      int64
	types                    mimeTypes
}

// ssiScratch is what an exchange knows about its includes.
type ssiScratch struct {
	page   *ssiPage
	shared *ssiShared // of the main request
}

// ssiShared is what all pages of a main request have in common.
type ssiShared struct {
	values   map[string][]byte
	blocks   []*ssiBlock
	size     int // of the blocks
	captures []int
	captured []byte
}

// ssiBlock is what stands between block and endblock.
type ssiBlock struct {
	name string
	text []byte
}

func (x *Exchange) ssiShared() *ssiShared {
	r := x.root()
	if r.ssi.shared == nil {
		r.ssi.shared = &ssiShared{values: map[string][]byte{}}
	}
	return r.ssi.shared
}

const ssiTimeFormat = "%A, %d-%b-%Y %H:%M:%S %Z"

// maxDate is the size that nginx has for a date.
const maxDate = 2048

// appendDate gives $date_local and $date_gmt in the format of the page.
func (x *Exchange) appendDate(dst []byte, t time.Time) ([]byte, bool) {
	format := ssiTimeFormat
	if x.ssi.page != nil {
		format = x.ssi.page.timeFormat
	}
	zone, _ := t.Zone()
	if t.Location() == time.UTC {
		zone = "GMT"
	}
	start := len(dst)
	dst = appendStrftime(dst, format, t, zone)
	if n := len(dst) - start; n == 0 || n >= maxDate {
		return dst[:start], false
	}
	return dst, true
}

// filter prepares the head (ngx_http_ssi_header_filter).
func (c *ssiConf) filter(x *Exchange) Code {
	if x.Out.ContentLength == 0 || !c.types.has(&x.Out) {
		return OK
	}
	if x.inner.level == 0 {
		x.Out.changesBody()
		if c.lastModified {
			x.weakenETag()
		} else {
			x.Out.LastModified = -1
			x.Out.Remove(http1.LastModified)
			x.Out.Remove(http1.ETag)
		}
	}
	page := newSSIPage(c)
	x.ssi.page = page
	x.FilterBody(page.install)
	return OK
}
