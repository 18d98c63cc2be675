"""What every layout must do, as one example of each: files of a small plate, what they are, and what its metadata states.

A new layout adds its example to `EXAMPLES`; the tests beside this file hold all of them to the same rules.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from cellcount_core.domain.plates import PlateFacts, Position
from cellcount_core.layouts.almf import AlmfSettings
from cellcount_core.layouts.base import LayoutSettings
from cellcount_core.layouts.cellomics import CellomicsSettings
from cellcount_core.layouts.cellvoyager import CellVoyagerSettings
from cellcount_core.layouts.columbus import ColumbusSettings
from cellcount_core.layouts.cytation import CytationSettings
from cellcount_core.layouts.evos import EvosSettings
from cellcount_core.layouts.flat import FlatSettings
from cellcount_core.layouts.harmony import HarmonySettings
from cellcount_core.layouts.hcsai import HcsAiSettings
from cellcount_core.layouts.imagexpress import ImageXpressSettings
from cellcount_core.layouts.incell import InCellSettings
from cellcount_core.layouts.incucyte import IncucyteSettings
from cellcount_core.layouts.leica import LeicaSettings
from cellcount_core.layouts.loaddata import LoadDataSettings
from cellcount_core.layouts.micromanager import MicroManagerSettings
from cellcount_core.layouts.ome_tiff import OmeTiffSettings
from cellcount_core.layouts.ome_zarr import OmeZarrSettings
from cellcount_core.layouts.pattern import PatternSettings
from cellcount_core.layouts.sbs import SbsSettings
from cellcount_core.layouts.scanr import ScanrSettings
from cellcount_core.layouts.squid import SquidSettings
from cellcount_core.layouts.table import TableSettings
from tests.contract.layouts.texts import (
    MES,
    MRF,
    columbus,
    hcsai_csv,
    jdce,
    mlf,
    scanr_descriptor,
    scanr_ome,
    xdce,
)

What = tuple[str, str, int, int, str, int]
"""plate, well, site, time point, channel, plane: as the layout must read them from a key."""


@dataclass(frozen=True)
class Example:
    """A plate as its instrument writes it.

    `fields` are the files of one channel, one a field, with holes (a well without its second site, a well in between
    without files): what is there must not depend on what is not. `beside` are keys that are images and must never become
    fields or files of fields: thumbnails, overlays, stitched or displayed renderings. `other_channel` is a file of the first
    field. `sidecars` are the metadata files, `facts` what they state.
    """

    settings: LayoutSettings
    fields: Mapping[str, What]
    beside: tuple[str, ...] = ()
    other_channel: Mapping[str, What] = field(default_factory=dict)
    sidecars: Mapping[str, bytes] = field(default_factory=dict)
    facts: tuple[PlateFacts, ...] = ()
    missing: tuple[tuple[str, int], ...] = ()
    """Well and site of the fields that the metadata states and of which there is no file."""
    plate_format: int | None = None
    """`run.plate_format`, if nothing else names wells that are only numbered."""


HTD = "\r\n".join(
    (
        '"HTSInfoFile", Version 1.0',
        '"Description", "two wells\xb6\xb6DAPI"',
        '"TimePoints", 1',
        '"ZSeries", FALSE',
        '"ZSteps", 0',
        '"XWells", 12',
        '"YWells", 8',
        '"WellsSelection1", ' + ", ".join(["FALSE"] * 12),
        '"WellsSelection2", FALSE, TRUE, TRUE, TRUE' + ", FALSE" * 8,
        *(f'"WellsSelection{row}", ' + ", ".join(["FALSE"] * 12) for row in range(3, 9)),
        '"Sites", TRUE',
        '"XSites", 2',
        '"YSites", 2',
        '"SiteSelection1", TRUE, FALSE',
        '"SiteSelection2", FALSE, TRUE',
        '"Waves", TRUE',
        '"NWavelengths", 3',
        '"WaveName1", "DAPI"',
        '"WaveName2", "FITC"',
        '"WaveName3", "Cy5"',
        '"WaveCollect1", 1',
        '"WaveCollect2", 1',
        '"WaveCollect3", 0',
        '"EndFile"',
    )
).encode("latin-1")
"""Not UTF-8, as the real ones; wells B02 to B04, two of four sites, the third wavelength not acquired."""

HARMONY = """<?xml version="1.0" encoding="utf-8"?>
<EvaluationInputData xmlns="http://www.perkinelmer.com/PEHH/HarmonyV5" Version="1">
<Plates><Plate><PlateID>x</PlateID><Name>P7</Name><PlateRows>16</PlateRows><PlateColumns>24</PlateColumns>
<Well id="0304" /><Well id="0305" /><Well id="1624" /></Plate></Plates>
<Images>
<Image Version="1"><Row>3</Row><Col>4</Col><FieldID>1</FieldID><PlaneID>1</PlaneID><TimepointID>0</TimepointID><ChannelID>1</ChannelID>
<ChannelName>HOECHST</ChannelName><ImageResolutionX Unit="m">6.5E-07</ImageResolutionX>
<PositionX Unit="m">-0.000325</PositionX><PositionY Unit="m">0.0001</PositionY></Image>
<Image Version="1"><Row>3</Row><Col>4</Col><FieldID>2</FieldID><PlaneID>1</PlaneID><TimepointID>0</TimepointID><ChannelID>2</ChannelID><ChannelName>GFP µ</ChannelName>
<ImageResolutionX Unit="m">6.5E-07</ImageResolutionX></Image>
<Image Version="1"><Row>16</Row><Col>24</Col><FieldID>2</FieldID><PlaneID>1</PlaneID><TimepointID>0</TimepointID><ChannelID>1</ChannelID></Image>
<Image Version="1"><Row>16</Row><Col>24</Col><FieldID>3</FieldID><PlaneID>1</PlaneID><TimepointID>0</TimepointID><ChannelID>1</ChannelID></Image>
</Images></EvaluationInputData>""".encode("utf-8-sig")


def leica_field(well_x: int, field_x: int, field_y: int, job: str = "true") -> str:
    """The record of a field in a scanning template, 100 µm apart in x and y."""
    return (
        f'<ScanFieldData JobId="8" SlideNo="1" WellX="{well_x}" WellY="2" FieldX="{field_x}" FieldY="{field_y}" Enabled="true" JobAssigned="{job}">'
        f"<FieldXCoordinate>{0.01 + field_x / 10000}</FieldXCoordinate><FieldYCoordinate>{0.02 + field_y / 10000}</FieldYCoordinate></ScanFieldData>"
    )


LEICA = (
    '<?xml version="1.0"?><MatrixScreenerTemplate><ScanningTemplate><Properties><CountOfWellsX>12</CountOfWellsX>'
    "<CountOfWellsY>8</CountOfWellsY></Properties></ScanningTemplate><ScanFieldArray>"
    + leica_field(1, 1, 1)
    + leica_field(1, 2, 1)
    + leica_field(1, 1, 2, "false")
    + leica_field(3, 1, 2)
    + "</ScanFieldArray></MatrixScreenerTemplate>"
).encode()
MICROMANAGER = {
    "Summary": {
        "ChNames": ["DAPI", "Cy5"],
        "Frames": 1,
        "Slices": 1,
        "StagePositions": [
            {
                "label": label,
                "defaultXYStage": "XY",
                "subpositions": [{"stageName": "Z", "x": 1.0, "y": 0}, {"stageName": "XY", "x": x, "y": 7.0}],
            }
            for label, x in (
                ("A1-Site_0", 0.0),
                ("A1-Site_1", 100.0),
                ("A1-Site_2", 200.0),
                ("H12-Site_0", 9000.0),
            )
        ],
    },
    "Coords-img_channel000_position000_time000000000_z000.tif": {"channel": 0},
    "Metadata-img_channel000_position000_time000000000_z000.tif": {"PixelSizeUm": 0.65},
}


ARRAY = json.dumps(
    {
        "zarr_format": 2, "shape": [2, 1, 8, 8], "chunks": [1, 1, 8, 8], "dtype": "<u2", "fill_value": 0, "order": "C",
        "compressor": None, "filters": None, "dimension_separator": "/",
    }
).encode()  # fmt: skip
IMAGE = json.dumps(
    {
        "multiscales": [
            {
                "axes": [{"name": name} for name in "czyx"],
                "datasets": [
                    {
                        "path": path,
                        "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 0.5, 0.5]}],
                    }
                    for path in "01"
                ],
            }
        ],
        "omero": {"channels": [{"label": "DAPI"}, {"label": "GFP"}]},
    }
).encode()


def zarr_plate(plate: str, wells: Mapping[str, tuple[str, ...]]) -> dict[str, bytes]:
    """The metadata of an OME-Zarr 0.4 plate: paths of wells, each with those of its images."""
    named = {"plate": {"wells": [{"path": path} for path in wells]}}
    bodies = {f"{plate}/.zattrs": json.dumps(named).encode()}
    for well, images in wells.items():
        if images:
            bodies[f"{plate}/{well}/.zattrs"] = json.dumps(
                {"well": {"images": [{"path": path} for path in images]}}
            ).encode()
        for image in images:
            bodies[f"{plate}/{well}/{image}/.zattrs"] = IMAGE
            bodies |= {f"{plate}/{well}/{image}/{level}/.zarray": ARRAY for level in "01"}
    return bodies


def companion(wells: Mapping[str, tuple[str, ...]]) -> bytes:
    """OME-XML of a plate: wells, each with the names of its images, of which each channel lies in a file of its own."""
    rows = []
    for well, images in wells.items():
        samples = "".join(
            f'<WellSample ID="S:{image}" Index="{7 * number}" PositionX="{number / 10}" PositionXUnit="mm" PositionY="5" PositionYUnit="µm">'
            f'<ImageRef ID="I:{image}"/></WellSample>'
            for number, image in enumerate(images, 1)
        )
        rows.append(
            f'<Well ID="W:{well}" Row="{ord(well[0]) - 65}" Column="{int(well[1:]) - 1}">{samples}</Well>'
        )
    described = "".join(
        f'<Image ID="I:{image}" Name="{image}"><Pixels ID="P:{image}" DimensionOrder="XYCZT" SizeX="30" SizeY="20" SizeC="2" SizeZ="1" SizeT="1"'
        ' PhysicalSizeX="0.65" PhysicalSizeXUnit="µm" Type="uint16"><Channel ID="C:0" Name="DAPI"/><Channel ID="C:1" Name="GFP"/>'
        + "".join(
            f'<TiffData FirstC="{number}" IFD="0" PlaneCount="1"><UUID FileName="p-{image}-{name}.ome.tif">urn:uuid:{image}-{number}</UUID></TiffData>'
            for number, name in enumerate(("DAPI", "GFP"))
        )
        + "</Pixels></Image>"
        for images in wells.values()
        for image in images
    )
    plate = f'<Plate ID="Plate:0" Name="P" Rows="8" Columns="12">{"".join(rows)}</Plate>'
    ome = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    return f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{ome}">{plate}{described}</OME>'.encode()


EXAMPLES: Mapping[str, Example] = {
    "flat": Example(
        FlatSettings(),
        {
            "day 1/a.png": ("day 1", "a", 1, 1, "", 0),
            "day 1/c.tif": ("day 1", "c", 1, 1, "", 0),
            "top.ome.tif": ("PX", "top", 1, 1, "", 0),
        },
        beside=("day 1/a_cp_masks.png", "day 1/a_cp_outlines.png", "day 1/c_seg.npy"),
    ),
    "imagexpress": Example(
        ImageXpressSettings(),
        {
            "run/p_B02_s1_w1.TIF": ("p", "B02", 1, 1, "w1", 0),
            "run/p_B02_s2_w1.TIF": ("p", "B02", 2, 1, "w1", 0),
            "run/p_B04_s2_w1D5F8F51A-3E85-4358-AE51-A465AF87386F.tif": ("p", "B04", 2, 1, "w1", 0),
        },
        beside=(
            "run/p_B02_s1_w1_thumb.TIF",
            "run/p_B02_s1_w1_thumbD5F8F51A-3E85-4358-AE51-A465AF87386F.tif",
            "run/p_B02_thumb_D5F8F51A-3E85-4358-AE51-A465AF87386F.tif",
        ),
        other_channel={"run/p_B02_s1_w2.TIF": ("p", "B02", 1, 1, "w2", 0)},
        sidecars={"run/p.HTD": HTD, "run/TimePoint_1/p.HTD": b"a copy, never read"},
        facts=(
            PlateFacts(
                folder="run", plate="p", source="run/p.HTD", rows=8, columns=12, timepoints=1,
                channels=(("w1", "DAPI"), ("w2", "FITC")),
            ),
        ),
        missing=(("B03", 1), ("B03", 2), ("B04", 1)),
    ),
    "harmony": Example(
        HarmonySettings(),
        {
            "m 1/Images/r03c04f01p01-ch1sk1fk1fl1.tiff": ("P7", "C04", 1, 1, "1", 1),
            "m 1/Images/r16c24f03p01-ch1sk1fk1fl1.tiff": ("P7", "P24", 3, 1, "1", 1),
        },
        beside=("m 1/Images/r03c04f01p01-ch1sk1fk1fl1_cp_masks.tiff",),
        other_channel={"m 1/Images/r03c04f01p01-ch2sk1fk1fl1.tiff": ("P7", "C04", 1, 1, "2", 1)},
        sidecars={"m 1/Images/Index.idx.xml": HARMONY},
        facts=(
            PlateFacts(
                folder="m 1", plate="", source="m 1/Images/Index.idx.xml", name="P7", rows=16, columns=24, um_per_px=0.65, planes=1, timepoints=1,
                channels=(("1", "HOECHST"), ("2", "GFP µ")), positions={("C04", 1): Position(-325.0, -100.0)},
            ),
        ),
        missing=(("C04", 2), ("C05", 1), ("C05", 2), ("C05", 3), ("P24", 2)),
    ),
    "cellvoyager": Example(
        CellVoyagerSettings(),
        {
            "run/p_1_B02_T0001F001L01A01Z01C01.tif": ("p_1", "B02", 1, 1, "C01", 1),
            "run/p_1_B02_T0001F002L01A01Z01C01.png": ("p_1", "B02", 2, 1, "C01", 1),
            "run/p_1_B04_T0001F002L01A01Z01C01.tif": ("p_1", "B04", 2, 1, "C01", 1),
        },
        beside=("run/SC_BP445-45_20x v2_M01_CH01.tif", "run/DC_DCAM#1_CAM1.tif"),
        other_channel={"run/p_1_B02_T0001F001L01A02Z01C02.tif": ("p_1", "B02", 1, 1, "C02", 1)},
        sidecars={
            "run/MeasurementData.mlf": mlf(
                ("p_1_B02_T0001F001L01A01Z01C01.tif", 2, 2, 1, "1"),
                ("p_1_B02_T0001F001L01A02Z01C02.tif", 2, 2, 1, "2"),
                ("p_1_B02_T0001F002L01A01Z01C01.tif", 2, 2, 2, "1"),
                ("p_1_B03_T0001F001L01A01Z01C01.tif", 2, 3, 1, "1"),
                ("AF Error at B04 No. 0", 2, 4, 1, ""),
                ("p_1_B04_T0001F002L01A01Z01C01.tif", 2, 4, 2, "1"),
            ),
            "run/MeasurementDetail.mrf": MRF,
            "run/own.mes": MES,
            "run/other.mes": MES.replace(b"DNA", b"not of this measurement"),
        },
        facts=(
            PlateFacts(
                folder="run", plate="p_1", source="run/MeasurementData.mlf", rows=8, columns=12, channels=(("C01", "DNA"), ("C02", "BP525/50")),
                um_per_px=0.325, image_shape=(2160, 2560), acquired={"B03": frozenset({"C01"}), "B04": frozenset({"C01"})}, timepoints=1, planes=1,
                positions={place: Position(-567.1, -402.9) for place in (("B02", 1), ("B02", 2), ("B03", 1), ("B04", 2))},
            ),
        ),
        missing=(("B03", 1), ("B04", 1)),
    ),
    "scanr": Example(
        ScanrSettings(),
        {
            "run/data/B2--W00014--P00001--Z00000--T00000--405 nm #1.tif": ("Exp 7", "B02", 1, 0, "405 nm #1", 0),
            "run/data/B2--W00014--P00002--Z00000--T00000--405 nm #1.tif": ("Exp 7", "B02", 2, 0, "405 nm #1", 0),
            "run/data/B4--W00016--P00002--Z00000--T00000--405 nm #1.tif": ("Exp 7", "B04", 2, 0, "405 nm #1", 0),
        },
        beside=("run/data/B2--W00014--P00001--Z00000--T00000--405 nm #1_cp_masks.tif",),
        other_channel={
            "run/data/B2--W00014--P00001--Z00000--T00000--640 nm.tif": ("Exp 7", "B02", 1, 0, "640 nm", 0)
        },
        sidecars={
            "run/experiment_descriptor.xml": scanr_descriptor({14: "B2", 15: "B3", 16: "B4"}, 2),
            "run/data/metadata.ome.xml": scanr_ome(
                ("B2--W00014--P00001--Z00000--T00000--405 nm #1.tif", 14, 1, "B2"),
                ("B2--W00014--P00002--Z00000--T00000--405 nm #1.tif", 14, 2, "B2"),
                ("B4--W00016--P00002--Z00000--T00000--405 nm #1.tif", 16, 2, "B4"),
            ),
        },
        facts=(
            PlateFacts(
                folder="run", plate="", source="run/data/metadata.ome.xml", name="Exp 7", rows=8, columns=12, channels=(("405 nm #1", ""),),
                um_per_px=0.325, image_shape=(1024, 2048), timepoints=1, planes=1, wells={14: "B02", 15: "B03", 16: "B04"},
                positions={place: Position(100090.5, -61827.0) for place in (("B02", 1), ("B02", 2), ("B04", 2))},
            ),
        ),
        missing=(("B03", 1), ("B03", 2), ("B04", 1)),
    ),
    "incell": Example(
        InCellSettings(),
        {
            "p/A - 01(fld 1 wv UV - DAPI).tif": ("p 7", "A01", 1, 1, "UV - DAPI", 0),
            "p/A - 01(fld 3 wv UV - DAPI).tif": ("p 7", "A01", 3, 1, "UV - DAPI", 0),
            "p/AF - 48(fld 2 wv UV - DAPI).tif": ("p 7", "AF48", 2, 1, "UV - DAPI", 0),
        },
        beside=("p/thumbnails/A - 01(fld 1 wv UV - DAPI).tif", "p/A - 01(fld 1 wv UV - DAPI)_thumb.tif"),
        other_channel={"p/A - 01(fld 1 wv Blue - FITC).tif": ("p 7", "A01", 1, 1, "Blue - FITC", 0)},
        sidecars={
            "p/p 7.xdce": xdce(
                ("A - 01(fld 1 wv UV - DAPI).tif", 1, 1, 0, 0),
                ("A - 01(fld 1 wv Blue - FITC).tif", 1, 1, 0, 1),
                ("A - 01(fld 3 wv UV - DAPI).tif", 1, 1, 2, 0),
                ("A - 02(fld 1 wv UV - DAPI).tif", 1, 2, 0, 0),
                ("AF - 48(fld 2 wv UV - DAPI).tif", 32, 48, 1, 0),
            )
        },
        facts=(
            PlateFacts(
                folder="p", plate="", source="p/p 7.xdce", name="p 7", rows=32, columns=48, um_per_px=0.65, image_shape=(1024, 2048), timepoints=1,
                channels=(("UV - DAPI", "DAPI"), ("Blue - FITC", "FITC")),
                positions={
                    ("A01", 1): Position(-100.0, -50.0), ("A01", 3): Position(-100.0, 50.0),
                    ("A02", 1): Position(-100.0, -50.0), ("AF48", 2): Position(100.0, -50.0),
                },
            ),
        ),
        missing=(("A02", 1),),
    ),
    "hcsai": Example(
        HcsAiSettings(),
        {
            "r/experiment/timepoint0/x_t0_C05_s0_w0_z0.tif": ("BC 1", "C05", 0, 0, "w0", 0),
            "r/experiment/timepoint0/x_t0_C05_s2_w0_z0.tif": ("BC 1", "C05", 2, 0, "w0", 0),
            "r/experiment/timepoint0/x_t0_C07_s0_w0_z0.tif": ("BC 1", "C07", 0, 0, "w0", 0),
        },
        beside=(
            "r/experiment_montage/timepoint0/x_t0_C05_s0_w0_z0.tif",
            "r/autofocus/x_t0_C05_s0_w0_z0.tif",
            "r/experiment_z_stack/timepoint0/x_t0_C05_s0_w0_z4.tif",
        ),
        other_channel={"r/experiment/timepoint0/x_t0_C05_s0_w1_z0.tif": ("BC 1", "C05", 0, 0, "w1", 0)},
        sidecars={
            "r/experiment/a.jdce": jdce("BC 1"),
            "r/experiment/image_metadata_1.csv": hcsai_csv(
                ("x_t0_C05_s0_w0_z0.tif", 3, 5, 0), ("x_t0_C05_s2_w0_z0.tif", 3, 5, 2), ("x_t0_C05_s0_w1_z0.tif", 3, 5, 0)
            ),
            "r/experiment/image_metadata_2.csv": hcsai_csv(
                ("x_t0_C06_s0_w0_z0.tif", 3, 6, 0), ("x_t0_C07_s0_w0_z0.tif", 3, 7, 0), ("x_t0_C07_s2_w0_z0.tif", 3, 7, 2)
            ),
        },
        facts=(
            PlateFacts(
                folder="r", plate="", source="r/experiment/a.jdce", name="BC 1", rows=8, columns=12, um_per_px=1.294, image_shape=(576, 577), timepoints=1,
                channels=(("w0", "DAPI"), ("w1", "FITC")),
                positions={
                    (well, site): Position(50027.5, 30045.5)
                    for well, site in (("C05", 0), ("C05", 2), ("C06", 0), ("C07", 0), ("C07", 2))
                },
            ),
        ),
        missing=(("C06", 0), ("C07", 2)),
    ),
    "cellomics": Example(
        CellomicsSettings(),
        {
            "p/AS_09047_050428030001_O01f00d0.TIF": ("AS_09047", "O01", 0, 1, "d0", 0),
            "p/AS_09047_050428030001_O01f07d0.C01": ("AS_09047", "O01", 7, 1, "d0", 0),
            "p/AS_09047_050428030001_AF48f07d0.DIB": ("AS_09047", "AF48", 7, 1, "d0", 0),
        },
        beside=("p/AS_09047_050428030001_O01f00o0.TIF", "p/AS_09047_050428030001_O01f00o1.C01"),
        other_channel={"p/AS_09047_050428030001_O01f00d2.TIF": ("AS_09047", "O01", 0, 1, "d2", 0)},
    ),
    "evos": Example(
        EvosSettings(),
        {
            "e/my scan_Plate_R_p00_0_A01f00d0.TIF": ("my scan", "A01", 0, 1, "d0", 0),
            "e/my scan_Plate_R_p00_0_A01f02d0.TIF": ("my scan", "A01", 2, 1, "d0", 0),
            "e/my scan_Plate_R_p00_z01_0_B03f00d0.TIF": ("my scan", "B03", 0, 1, "d0", 1),
        },
        beside=(
            "e/my scan_Plate_M_p00_0_A01f00d0.TIF", "e/my scan_Plate_D_p00_0_A01f00d0.TIF", "e/my scan_Plate_TR_p00_0_A01f00d0.TIF",
            "e/my scan_Plate_TM2_p00_0_A01f00d0.TIF", "e/my scan_Plate_TD_p00_0_A01f00d0.TIF",
        ),
        other_channel={"e/my scan_Plate_R_p00_0_A01f00d1.TIF": ("my scan", "A01", 0, 1, "d1", 0)},
    ),
    "columbus": Example(
        ColumbusSettings(),
        {
            "m/1.tif": ("Plate 6", "A02", 1, 1, "1", 1),
            "m/2.tif": ("Plate 6", "A02", 2, 1, "1", 1),
            "m/3.tif": ("Plate 6", "B03", 1, 1, "1", 1),
        },
        beside=("m/overview.tif", "m/1_thumb.tif"),
        other_channel={"m/1b.tif": ("Plate 6", "A02", 1, 1, "2", 1)},
        sidecars={
            "m/ImageIndex.ColumbusIDX.xml": columbus(
                ("1.tif", None, 1, 2, 1, 1), ("1b.tif", None, 1, 2, 1, 2), ("2.tif", None, 1, 2, 2, 1), ("3.tif", 0, 2, 3, 1, 1),
                ("gone.tif", 0, 2, 3, 2, 1), wells=("001002", "002003", "002001"),
            )
        },
        facts=(
            PlateFacts(
                folder="m", plate="", source="m/ImageIndex.ColumbusIDX.xml", name="Plate 6", rows=2, columns=3, channels=(("1", "ch 1"), ("2", "ch 2")),
                um_per_px=0.65, image_shape=(48, 64), timepoints=1, planes=1,
                positions={place: Position(100.0, -200.0) for place in (("A02", 1), ("A02", 2), ("B03", 1), ("B03", 2))},
            ),
        ),
        missing=(("B03", 2), ("B01", 1), ("B01", 2)),
    ),
    "ome-zarr": Example(
        OmeZarrSettings(),
        {
            "p.zarr/B/2/0/0/0/0/0/0": ("p", "B02", 1, 1, "DAPI", 0),
            "p.zarr/B/2/2/0/0/0/0/0": ("p", "B02", 3, 1, "DAPI", 0),
            "p.zarr/B/04/0/0/0/0/0/0": ("p", "B04", 1, 1, "DAPI", 0),
        },
        beside=(
            "p.zarr/B/2/0/1/0/0/0/0",
            "p.zarr/B/2/0/labels/nuclei/0/0/0/0/0",
            "p.zarr/B/2/0/tables/ROI/X/0.0",
            "p.zarr/thumbnail.png",
        ),
        other_channel={"p.zarr/B/2/0/0/1/0/0/0": ("p", "B02", 1, 1, "GFP", 0)},
        sidecars=zarr_plate("p.zarr", {"B/2": ("0", "2"), "B/04": ("0",), "B/07": ()}),
        missing=(("B07", 1),),
    ),
    "sbs": Example(
        SbsSettings(),
        {
            "d/Channel 2-01-A-01-00.tif": ("d", "A01", 0, 1, "2", 0),
            "d/Channel 2-14-B-02-03.tif": ("d", "B02", 3, 1, "2", 0),
            "b/x_z_16/mcf-z_a01_s2_w2D5F8F51A-3E85-4358-AE51-A465AF87386F.tif": ("mcf-z", "A01", 2, 1, "2", 16),
        },
        beside=("d/Channel 2-01-A-01-00_cp_masks.tif", "b/x_labels/mcf-z_a01_s2.png"),
        other_channel={"d/Channel 1-01-A-01-00.tif": ("d", "A01", 0, 1, "1", 0)},
    ),
    "cytation": Example(
        CytationSettings(),
        {
            "P/B7_01_1_3_DAPI_001.tif": ("P", "B07", 3, 1, "DAPI", 0),
            "P/B7_01_1_3_DAPI_002.tif": ("P", "B07", 3, 2, "DAPI", 0),
            "P/H12_01_1_1_DAPI_001.tif": ("P", "H12", 1, 1, "DAPI", 0),
        },
        beside=(
            "P/B7_01_1_3_DAPI_001_MaskNuclei.tiff",
            "P/B7_-1_1_1_Stitched[DAPI 377,447]_001.tif",
            "P/B7_01_1_1_Tsf[DAPI 377,447]_001.tif",
        ),
        other_channel={"P/B7_01_2_3_Bright Field_001.tif": ("P", "B07", 3, 1, "Bright Field", 0)},
    ),
    "leica": Example(
        LeicaSettings(),
        {
            f"experiment--e/slide--S00/chamber--U{u:02d}--V01/field--X{x:02d}--Y{y:02d}/image--L0000--S00--U{u:02d}--V01--J08--E00--O00--X{x:02d}"
            f"--Y{y:02d}--T0000--Z00--C00.ome.tif": ("experiment--e", well, site, 0, "C00", 0)
            for u, x, y, well, site in ((0, 0, 0, "B01", 1001), (0, 1, 0, "B01", 1002))
        },
        beside=("experiment--e/slide--S00/chamber--U00--V01/stitched--U00--V01--C00.png",),
        other_channel={
            "experiment--e/slide--S00/chamber--U00--V01/field--X00--Y00/image--L00--S00--U00--V01--J08--E00--O00--X00--Y00--T00--Z00--C01.png": (
                "experiment--e", "B01", 1001, 0, "C01", 0,
            )
        },
        sidecars={"experiment--e/AdditionalData/{ScanningTemplate}t.xml": LEICA},
        facts=(
            PlateFacts(
                folder="experiment--e", plate="experiment--e", source="experiment--e/AdditionalData/{ScanningTemplate}t.xml", rows=8, columns=12,
                positions={
                    ("B01", 1001): Position(10100.0, 20100.0), ("B01", 1002): Position(10200.0, 20100.0),
                    ("B03", 2001): Position(10100.0, 20200.0),
                },
            ),
        ),
        missing=(("B03", 2001),),
    ),
    "micromanager": Example(
        MicroManagerSettings(),
        {
            "s/A1-Site_0/img_channel000_position000_time000000000_z000.tif": ("s", "A01", 0, 0, "0", 0),
            "s/A1-Site_2/img_channel000_position002_time000000000_z000.tif": ("s", "A01", 2, 0, "0", 0),
            "s/H12-Site_0/img_channel000_position003_time000000000_z000.tif": ("s", "H12", 0, 0, "0", 0),
        },
        beside=("s/A1-Site_0/img_channel000_position000_time000000000_z000_cp_masks.tif",),
        other_channel={"s/A1-Site_0/img_channel001_position000_time000000000_z000.tif": ("s", "A01", 0, 0, "1", 0)},
        sidecars={
            "s/A1-Site_0/metadata.txt": json.dumps(MICROMANAGER).encode(),
            "s/A1-Site_2/metadata.txt": b"says the same, and more of its own position",
        },
        facts=(
            PlateFacts(
                folder="s", plate="s", source="s/A1-Site_0/metadata.txt", channels=(("0", "DAPI"), ("1", "Cy5")), um_per_px=0.65, timepoints=1,
                planes=1, positions={("A01", site): Position(100.0 * site, 7.0) for site in (0, 1, 2)} | {("H12", 0): Position(9000.0, 7.0)},
            ),
        ),
        missing=(("A01", 1),),
    ),
    "almf": Example(
        AlmfSettings(),
        {
            "p/W0001--a--0.1/P001--a--0.1/p--a--0.1--W0001--P001--T0000--C00.tif": ("p", "A01", 1, 0, "C00", 0),
            "p/W0001--a--0.1/P003--a--0.1/p--a--0.1--W0001--P003--T0000--C00.tif": ("p", "A01", 3, 0, "C00", 0),
            "p/W0029--b--0.1/P001--b--0.1/p--b--0.1--W0029--P001--T0002--Z000--C00.tif": ("p", "C05", 1, 2, "C00", 0),
        },
        beside=("p/W0001--a--0.1/P001--a--0.1/p--a--0.1--W0001--P001--T0000--C00_cp_masks.tif",),
        other_channel={"p/p--a--0.1--W0001--P001--T0000--C01.tif": ("p", "A01", 1, 0, "C01", 0)},
        plate_format=96,
    ),
    "incucyte": Example(
        IncucyteSettings(),
        {
            "e/cells_Phase_A7_1_00d04h00m.tif": ("cells", "A07", 1, 240, "Phase", 0),
            "e/cells_Phase_A7_3_00d04h00m.tif": ("cells", "A07", 3, 240, "Phase", 0),
            "e/cells_Phase_H12_1_01d00h00m.tif": ("cells", "H12", 1, 1440, "Phase", 0),
        },
        beside=("e/cells_Phase_A7_1_00d04h00m_cp_masks.tif",),
        other_channel={"e/cells_Green_A7_1_00d04h00m.tif": ("cells", "A07", 1, 240, "Green", 0)},
    ),
    "squid": Example(
        SquidSettings(),
        {
            "s/0/B2_0_0_Fluorescence_405_nm_Ex.tiff": ("s", "B02", 0, 0, "Fluorescence_405_nm_Ex", 0),
            "s/0/B2_3_0_Fluorescence_405_nm_Ex.tiff": ("s", "B02", 3, 0, "Fluorescence_405_nm_Ex", 0),
            "s/0/C11_0_0_Fluorescence_405_nm_Ex.tiff": ("s", "C11", 0, 0, "Fluorescence_405_nm_Ex", 0),
        },
        beside=("s/0/B2_0_0_Fluorescence_405_nm_Ex_cp_masks.tiff",),
        other_channel={"s/0/B2_0_0_BF_LED_matrix_full.bmp": ("s", "B02", 0, 0, "BF_LED_matrix_full", 0)},
        sidecars={
            "s/acquisition parameters.json": json.dumps(
                {
                    "Nt": 1, "Nz": 1, "sensor_pixel_size_um": 3.2, "tube_lens_mm": 100,
                    "objective": {"magnification": 10, "tube_lens_f_mm": 200, "NA": 0.3},
                }
            ).encode(),
            "s/coordinates.csv": (
                b"region,fov,z_level,x (mm),y (mm),z (um)\nB2,0,0,14.5,20.25,1\nB2,1,0,15.5,20.25,1\nB2,3,0,15.5,21.25,1\nC11,0,0,100,30,1\n"
            ),
            "s/0/coordinates.csv": b"says what was imaged",
        },
        facts=(
            PlateFacts(
                folder="s", plate="s", source="s/acquisition parameters.json", um_per_px=0.64, timepoints=1, planes=1,
                positions={
                    ("B02", 0): Position(14500.0, 20250.0), ("B02", 1): Position(15500.0, 20250.0),
                    ("B02", 3): Position(15500.0, 21250.0), ("C11", 0): Position(100000.0, 30000.0),
                },
            ),
        ),
        missing=(("B02", 1),),
    ),
    "ome-tiff": Example(
        OmeTiffSettings(),
        {
            "o/p-B02-1-DAPI.ome.tif": ("P", "B02", 1, 1, "DAPI", 0),
            "o/p-B02-3-DAPI.ome.tif": ("P", "B02", 3, 1, "DAPI", 0),
            "o/p-H12-1-DAPI.ome.tif": ("P", "H12", 1, 1, "DAPI", 0),
        },
        beside=("o/p-overview.tif", "o/p-B02-1-DAPI_cp_masks.png"),
        other_channel={"o/p-B02-1-GFP.ome.tif": ("P", "B02", 1, 1, "GFP", 0)},
        sidecars={"o/p.companion.ome": companion({"B02": ("B02-1", "B02-2", "B02-3"), "H12": ("H12-1",)})},
        facts=(
            PlateFacts(
                folder="o", plate="P", source="o/p.companion.ome", rows=8, columns=12, um_per_px=0.65, image_shape=(20, 30),
                positions={("B02", site): Position(100.0 * site, 5.0) for site in (1, 2, 3)} | {("H12", 1): Position(100.0, 5.0)},
            ),
        ),
        missing=(("B02", 2),),
    ),
    "pattern": Example(
        PatternSettings(pattern=r"Channel(?P<channel>\d)-\d+-(?P<row>[A-H])-(?P<column>\d+)\.tif"),
        {
            "sbs/Channel2-01-A-01.tif": ("sbs", "A01", 1, 1, "2", 0),
            "sbs/Channel2-14-B-02.tif": ("sbs", "B02", 1, 1, "2", 0),
        },
        beside=("sbs/Channel2-01-A-01_cp_masks.tif",),
        other_channel={"sbs/Channel1-01-A-01.tif": ("sbs", "A01", 1, 1, "1", 0)},
    ),
    "table": Example(
        TableSettings(manifest="m.csv"),
        {
            "x/1.tif": ("P", "A01", 1, 1, "DAPI", 0),
            "x/3.tif": ("P", "A02", 2, 1, "DAPI", 0),
        },
        beside=("x/1_thumb.tif", "x/not-named.tif"),
        other_channel={"x/2.tif": ("P", "A01", 1, 1, "GFP", 0)},
        sidecars={
            "m.csv": b"key,plate,well,site,channel\nx/3.tif,P,a2,2,DAPI\nx/gone.tif,P,B7,1,DAPI\nx/1.tif,P,A01,1,DAPI\nx/2.tif,P,A1,1,GFP\n"
        },
        missing=(("B07", 1),),
    ),
    "loaddata": Example(
        LoadDataSettings(),
        {
            "i/P/r01c01f01p01-ch5sk1fk1fl1.tiff": ("P", "A01", 1, 1, "DNA", 0),
            "i/P/r02c03f09p01-ch5sk1fk1fl1.tiff": ("P", "B03", 9, 1, "DNA", 0),
        },
        beside=("i/illum/P_IllumDNA.tif", "i/P/r01c01f01p01-ch7sk1fk1fl1.tiff"),
        other_channel={"i/P/r01c01f01p01-ch2sk1fk1fl1.tiff": ("P", "A01", 1, 1, "AGP", 0)},
        sidecars={
            "load_data.csv": (
                b"Metadata_Plate,Metadata_Well,Metadata_Site,FileName_OrigDNA,PathName_OrigDNA,FileName_OrigAGP,PathName_OrigAGP,"
                b"FileName_IllumDNA,PathName_IllumDNA\r\n"
                b"P,b3,9,r02c03f09p01-ch5sk1fk1fl1.tiff,s3://b/x/i/P/,r02c03f09p01-ch2sk1fk1fl1.tiff,s3://b/x/i/P/,P_IllumDNA.npy,s3://b/y\r\n"
                b"P,A1,2,r01c01f02p01-ch5sk1fk1fl1.tiff,s3://b/x/i/P,r01c01f02p01-ch2sk1fk1fl1.tiff,s3://b/x/i/P,P_IllumDNA.npy,s3://b/y\r\n"
                b"P,A1,1,r01c01f01p01-ch5sk1fk1fl1.tiff,s3://b/x/i/P,r01c01f01p01-ch2sk1fk1fl1.tiff,s3://b/x/i/P,P_IllumDNA.npy,s3://b/y\r\n"
            )
        },
        missing=(("A01", 2),),
    ),
}  # fmt: skip
