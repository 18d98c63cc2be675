"""Metadata files of instruments, made up by their grammar for small plates."""

from __future__ import annotations

import json
from collections.abc import Mapping


def mlf(*records: tuple[str, int, int, int, str]) -> bytes:
    """An `.mlf` with records of (file or message, row, column, field, channel); a message has no channel."""
    newline, told = "\n", []
    for name, row, column, site, channel in records:
        of = f'bts:Type="IMG" bts:ZIndex="1" bts:Ch="{channel}"' if channel else 'bts:Type="ERR"'
        told.append(
            f'<bts:MeasurementRecord {of} bts:Column="{column}" bts:Row="{row}" bts:TimePoint="1" bts:FieldIndex="{site}" bts:TimelineIndex="1"'
            f' bts:X="-567.1" bts:Y="402.9">{name}</bts:MeasurementRecord>'
        )
    return f"""<?xml version="1.0" encoding="utf-8"?>
<bts:MeasurementData bts:Version="1.0" xmlns:bts="http://www.yokogawa.co.jp/BTS/BTSSchema/1.0">
{newline.join(told)}
</bts:MeasurementData>""".encode()


MRF = """<?xml version="1.0" encoding="utf-8"?>
<bts:MeasurementDetail bts:Title="t" bts:MeasurementSettingFileName="own.mes" bts:ColumnCount="12" bts:RowCount="8" xmlns:bts="http://www.yokogawa.co.jp/BTS/BTSSchema/1.0">
<bts:MeasurementChannel bts:Ch="1" bts:HorizontalPixelDimension="0.325" bts:HorizontalPixels="2560" bts:VerticalPixels="2160" />
<bts:MeasurementChannel bts:Ch="2" bts:HorizontalPixelDimension="0.325" bts:HorizontalPixels="2560" bts:VerticalPixels="2160" />
<bts:MeasurementChannel bts:Ch="3" bts:HorizontalPixelDimension="0.65" bts:HorizontalPixels="1280" bts:VerticalPixels="1080" />
</bts:MeasurementDetail>""".encode("utf-8-sig")
MES = b"""<bts:MeasurementSetting bts:Columns="12" bts:Rows="8" xmlns:bts="http://www.yokogawa.co.jp/BTS/BTSSchema/1.0"><bts:ChannelList>
<bts:Channel bts:Ch="1" bts:Target="DNA" bts:Acquisition="BP445/45" /><bts:Channel bts:Ch="2" bts:Target="" bts:Acquisition="BP525/50" />
<bts:Channel bts:Ch="3" bts:Target="never acquired" /></bts:ChannelList></bts:MeasurementSetting>"""


def scanr_value(name: str, value: object) -> str:
    return f"<U16><Name>{name}</Name><Val>{value}</Val></U16>"


def scanr_descriptor(wells: Mapping[int, str], positions: int) -> bytes:
    """A descriptor of a 96-well plate by the grammar of Bio-Formats' ScanrReader: Latin-1, undeclared, a name and then its value."""
    table = "".join(scanr_value("", number) + scanr_value("", label) for number, label in wells.items())
    channels = "".join(
        f"<Cluster>{scanr_value('name', name)}{scanr_value('exposure time', 100)}{scanr_value('idle', idle)}</Cluster>"
        for name, idle in (("405 nm #1", 0), ("Autofocus", 0), ("GFP", 1), ("640 nm", 0))
    )
    return (
        '<?xml version="1.0" standalone="no"?><LVData><Cluster><Name>experiment \xb5</Name>'
        f"{scanr_value('plate name', 'Exp 7')}{scanr_value('conversion factor um/pixel', 0.325)}{scanr_value('# slices', 1)}"
        f"<Cluster><Name>format typedef</Name>{scanr_value('Rows', 8)}{scanr_value('Columns', 12)}</Cluster>"
        f"<Array><Name>subposition list</Name><Dimsize>{positions}</Dimsize></Array>"
        f"<Array><Name>well selection table + cDNA</Name><Dimsize>{len(wells)}</Dimsize>{table}</Array>"
        f"<Array><Name>channels</Name>{channels}</Array></Cluster></LVData>"
    ).encode("latin-1")


def scanr_ome(*files: tuple[str, int, int, str]) -> bytes:
    """A `metadata.ome.xml` with an image for each of (file, well number, position, well name)."""
    images = "".join(
        f'<Image ID="Image:W{number}P{site}" Name="Well {number}, Position {site}{f" ({well})" if well else ""}"><Pixels PhysicalSizeX="0.325000" SizeX="2048"'
        f' SizeY="1024" SizeC="1" SizeT="1" SizeZ="1"><TiffData FirstC="0"><UUID FileName="{name}">urn:uuid:1</UUID></TiffData>'
        f'<Plane PositionX="100090.5" PositionY="61827.0" TheC="0" TheT="0" TheZ="0"/></Pixels></Image>'
        for name, number, site, well in files
    )
    return f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2013-06">{images}</OME>'.encode()


def xdce(*images: tuple[str, int, int, int, int]) -> bytes:
    """An `.xdce` of a 1536-well plate with images of (file, row, column, field index, wave index), and four fields of a square."""
    waves = "".join(
        f'<Wavelength index="{at}" imaging_mode="2-D" fusion_wave="{"true" if name == "fused" else "false"}"><ExcitationFilter name="{of}"/>'
        f'<EmissionFilter name="{name}"/></Wavelength>'
        for at, (of, name) in enumerate((("UV", "DAPI"), ("Blue", "FITC"), ("", "fused")))
    )
    offsets = "".join(
        f'<offset_point x="{x}" y="{y}"/>' for x, y in ((-100, 50), (100, 50), (-100, -50), (100, -50))
    )
    listed = "".join(
        f'<Image filename="{name}" thumbnail=""><Well><Row number="{row}"/><Column number="{column}"/></Well>'
        f'<Identifier field_index="{site}" z_index="0" wave_index="{wave}" time_index="0"/></Image>'
        for name, row, column, site, wave in images
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><ImageStack><AutoLeadAcquisitionProtocol><Camera><Size width="2048" height="1024"/></Camera>'
        '<ObjectiveCalibration pixel_width="0.65" pixel_height="0.65"/><Plate rows="32" columns="48"><NamingRows begin="A"/></Plate>'
        f'<Wavelengths>{waves}</Wavelengths><PlateMap><TimeSchedule enabled="false"><Times><TimePoint/><TimePoint/></Times></TimeSchedule>'
        f"<FieldOffsets>{offsets}</FieldOffsets></PlateMap></AutoLeadAcquisitionProtocol><Images>{listed}</Images></ImageStack>"
    ).encode()


def jdce(barcode: str) -> bytes:
    """A `.jdce` of a 96-well plate with three wavelengths, of which the third is never used, and two CSVs."""
    waves = [
        {"Index": at, "EmissionFilter": {"Name": name}} for at, name in enumerate(("DAPI", "FITC", "Cy5"))
    ]
    protocol = {
        "Camera": {"Size": {"Width": 577, "Height": 576}},
        "ObjectiveCalibration": {"Unit": "µm", "PixelWidth": 1.294, "PixelHeight": 1.294},
        "Plate": {"Name": "labware", "Rows": 8, "Columns": 12},
        "Wavelengths": waves,
    }
    stack = {
        "PlateId": "protocol 2026",
        "SpecimenHolder": {"Barcode": barcode},
        "AutoLeadAcquisitionProtocol": protocol,
        "ImageMetadataFiles": ["image_metadata_1.csv", "image_metadata_2.csv"],
    }
    return (
        b"junk before\r\n" + json.dumps({"Version": "1.1", "ImageStack": stack}, ensure_ascii=False).encode()
    )


def hcsai_csv(*images: tuple[str, int, int, int]) -> bytes:
    """An `image_metadata_N.csv` with lines of (file, row, column, field)."""
    lines = [
        "FovUuid,Well,Row,Column,Field,ImageSizeXPx,ImageSizeYPx,ImageSubFolderPath,ImageFileName,PositionXUm,PositionYUm"
    ]
    lines += [
        f"u,{chr(64 + row)} - {column},{row},{column},{site},577,576,timepoint0,{name},50027.5,30045.5"
        for name, row, column, site in images
    ]
    return "\r\n".join(lines).encode()


def _url(url: str, page: int | None) -> str:
    return f"<URL>{url}</URL>" if page is None else f'<URL BufferNo="{page}">{url}</URL>'


def columbus(*images: tuple[str, int | None, int, int, int, int], wells: tuple[str, ...] = ()) -> bytes:
    """An `ImageIndex.ColumbusIDX.xml` of a 6-well plate with records of (URL, page, row, column, field, channel)."""
    records = "".join(
        f'<Image Version="1"><id>x</id><State>Ok</State>{_url(url, page)}<Row>{row}</Row><Col>{column}</Col>'
        f"<FieldID>{site}</FieldID><PlaneID>1</PlaneID><TimepointID>1</TimepointID><ChannelID>{channel}</ChannelID><ChannelName>ch {channel}</ChannelName>"
        '<ImageResolutionX Unit="m">6.5E-07</ImageResolutionX><ImageSizeX>64</ImageSizeX><ImageSizeY>48</ImageSizeY>'
        f'<PositionX Unit="m">0.0001</PositionX><PositionY Unit="m">0.0002</PositionY></Image>'
        for url, page, row, column, site, channel in images
    )
    selected = "".join(f'<Well id="{well}" />' for well in wells)
    return (
        '<?xml version="1.0" encoding="utf-8"?><EvaluationInputData xmlns="http://www.perkinelmer.com/Columbus" Version="1"><Plates><Plate>'
        f"<Name>Plate 6</Name><PlateRows>2</PlateRows><PlateColumns>3</PlateColumns>{selected}</Plate></Plates><Images>{records}</Images>"
        "</EvaluationInputData>"
    ).encode()
