package proxy

import (
	"errors"
	"io/fs"
	"os"

	"proxyctl/parser"
	"proxyctl/proxy/mp4"
)

// ngx_http_mp4_module: answers with a file, or with a piece of its time.

// mp4Conf is what the module knows at a level.
type mp4Conf struct {
	bufferSize, maxBufferSize int64
	keyFrame                  bool
}

func mp4Module() Module {
	const in = inHTTPLevels
	return Module{
		Name: "ngx_http_mp4_module",
		Commands: []Command{
			{
				Name: "mp4", In: InLocation, Args: "0", Repeat: true, Differs: "samples that are all of one size are counted as well: nginx gives the wrong bytes of such tracks", Doc: "Answers with pieces of MP4 files, by the arguments start and end.",
				Set: func(l *Level, _ *parser.Directive) error {
					l.Conf.Own.Content = serveMP4
					return nil
				},
			},
			Size(Command{Name: "mp4_buffer_size", In: in, Default: "512k", Doc: "Sets how much of the description of a file may always be read into memory."}, func(c *Conf) *int64 { return &c.MP4.bufferSize }),
			Size(Command{Name: "mp4_max_buffer_size", In: in, Default: "10m", Doc: "Sets how large the description of a file may be."}, func(c *Conf) *int64 { return &c.MP4.maxBufferSize }),
			Flag(Command{Name: "mp4_start_key_frame", In: in, Default: "off", Doc: "Begins pieces with a key frame."}, func(c *Conf) *bool { return &c.MP4.keyFrame }),
		},
		Init: func(c *Conf) { c.MP4 = mp4Conf{bufferSize: 512 << 10, maxBufferSize: 10 << 20} },
	}
}

// openMedia opens the file that the URI names. Declined is for what is no file.
func (x *Exchange) openMedia() (*os.File, fs.FileInfo, Code) {
	if !x.isMethod("GET") && !x.isMethod("HEAD") {
		return nil, nil, 405
	}
	if x.namesFolder() {
		return nil, nil, Declined
	}
	if code := x.discardBody(); code != OK {
		return nil, nil, code
	}
	path := x.path()
	if leavesRoot(path) { // Unlike nginx, which follows an alias out of its folder.
		x.Logf(logError, "%q leaves the folder of its alias", path)
		return nil, nil, 404
	}
	f, err := x.open(path)
	if err != nil {
		return nil, nil, x.openFailed(path, err)
	}
	info, err := f.Stat()
	switch {
	case err != nil:
		_ = f.Close()
		return nil, nil, x.openFailed(path, err)
	case !info.Mode().IsRegular():
		_ = f.Close()
		return nil, nil, Declined
	}
	return f, info, OK
}

// serveMP4 answers with a file or a piece of it (ngx_http_mp4_handler).
func serveMP4(x *Exchange) Code {
	f, info, code := x.openMedia()
	if code != OK {
		return code
	}
	defer f.Close()
	clip, code := x.clip(f, info.Size())
	if code != OK {
		return code
	}
	if clip == nil {
		return x.sendFile(f, info)
	}
	return x.sendClip(f, info, clip)
}

// clip reads the arguments and cuts; nil for the file as it is.
func (x *Exchange) clip(f *os.File, size int64) (*mp4.Clip, Code) {
	c := &x.loc.Conf.MP4
	start, cut := x.milliseconds("start")
	o := &mp4.Options{Start: start, KeyFrame: c.keyFrame, MaxMovie: max(c.bufferSize, c.maxBufferSize)}
	if end, ok := x.milliseconds("end"); ok && end > 0 {
		if cut = true; end > start {
			o.Length = end - start
		}
	}
	if !cut {
		return nil, OK
	}
	clip, err := mp4.Cut(f, size, o)
	switch {
	case errors.As(err, new(*mp4.TooLarge)):
		x.Logf(logError, "\"%s\" %v, you may want to increase mp4_max_buffer_size", f.Name(), err)
		return nil, 500
	case errnoOf(err) != 0:
		x.Logf(logCrit, "%s", SystemError("pread()", f.Name(), err))
		return nil, 500
	case err != nil:
		x.Logf(logError, "%v in \"%s\"", err, f.Name())
		return nil, 500
	}
	return clip, OK
}

// milliseconds reads an argument in seconds; digits after the third of a fraction
// do not count (ngx_http_mp4_atofp).
func (x *Exchange) milliseconds(name string) (uint64, bool) {
	text, ok := appendArgument(nil, x, name)
	if !ok || len(text) == 0 {
		return 0, false
	}
	const most = 1 << 50
	n, places, dot := uint64(0), 3, false
	for _, c := range text {
		switch {
		case c == '.' && !dot:
			dot = true
		case c < '0' || c > '9', n > most:
			return 0, false
		case places > 0:
			n = 10*n + uint64(c-'0')
			if dot {
				places--
			}
		}
	}
	for ; places > 0; places-- {
		n *= 10
	}
	return n, true
}

// sendClip sends a head of its own and a part of the file.
func (x *Exchange) sendClip(f *os.File, info fs.FileInfo, clip *mp4.Clip) Code {
	size := int64(len(clip.Head)) + clip.To - clip.From
	if code := x.mediaHead(info, size); code != OK || x.headerOnly {
		return headDone(code)
	}
	if x.WriteBody(clip.Head, false) != nil {
		return Abort
	}
	return x.sendFilePart(f, clip.From, clip.To-clip.From, true)
}

// mediaHead sends the head of what is made of a file.
func (x *Exchange) mediaHead(info fs.FileInfo, size int64) Code {
	a := &x.Out
	a.Status, a.ContentLength, a.LastModified = 200, size, info.ModTime().Unix()
	if x.loc.Conf.Core.ETag {
		a.Add(etagName, x.etag(a.LastModified, size))
	}
	a.ContentType = x.contentType()
	a.AcceptRanges, a.seekable = true, false
	return x.SendHead()
}

// headDone is what comes of an answer without a body.
func headDone(code Code) Code {
	if code != OK {
		return code
	}
	return Done
}
