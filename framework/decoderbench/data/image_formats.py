"""The image formats that are read, and the suffixes of image files and of archives. No torch here."""

from PIL import features

_SUFFIXES = {
    "PNG": (".apng", ".png"),
    "JPEG": (".jfif", ".jpe", ".jpeg", ".jpg", ".mpo"),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".pbm", ".pgm", ".pnm", ".ppm"),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx"),
}
_LIBRARIES = {"PNG": "zlib", "JPEG": "jpg", "WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}
_OTHERS = """
    .ai .arw .bpg .cr2 .cr3 .cur .dcm .dds .djv .djvu .dng .emf .eps .exr .hdr .heic .heif .hif .icns .ico .jng .jxl
    .jxr .mng .nef .orf .pcx .pdf .pfm .ps .psd .qoi .raf .ras .rw2 .sgi .svg .svgz .wmf .xbm .xcf .xpm
"""

# An explicit list, because Pillow would otherwise run a PostScript interpreter on PostScript files.
IMAGE_FORMATS = tuple(name for name in _SUFFIXES if name not in _LIBRARIES or features.check(_LIBRARIES[name]))
"""The formats that are recognized by the content of a file and that the installed Pillow can read."""

FORMAT_OF_SUFFIX = {".dib": "DIB", ".tga": "TGA"}
"""Formats whose files do not start in a way of their own, so that any file could pass for one: tried by name only."""

IMAGE_SUFFIXES = frozenset(suffix for name in IMAGE_FORMATS for suffix in _SUFFIXES[name]) | FORMAT_OF_SUFFIX.keys()
"""Suffixes of the files that `Dataset.decode` reads with the installed Pillow, in lower case with the dot."""

UNSUPPORTED_IMAGE_SUFFIXES = frozenset([*_OTHERS.split(), *sum(_SUFFIXES.values(), ())]) - IMAGE_SUFFIXES
"""Suffixes of other images and of documents, so that a message can name such files, in lower case with the dot."""

ARCHIVE_SUFFIXES = frozenset([".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip", ".zst"])
"""Suffixes of archives, which no dataset unpacks, in lower case with the dot."""
